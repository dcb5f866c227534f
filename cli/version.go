package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"

	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"davit/cli/format"
	"davit/internal/version"
)

// versions is what version --format sees; Server is nil when no engine answers.
type versions struct {
	Client clientVersion
	Server *system.VersionResponse
}

type clientVersion struct {
	Version   string
	GoVersion string
	Os        string
	Arch      string
	Context   string
}

func (a *app) versionCommand() *cobra.Command {
	var spec string
	cmd := &cobra.Command{
		Use:   "version [OPTIONS]",
		Short: "Show the version of davit and of its engine",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Client: clientVersion{version.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH, "default"}}
			failure := a.serverVersion(cmd.Context(), &v)
			if spec == "" {
				v.print(a.out)
				return failure
			}
			raw, err := json.Marshal(v)
			if err != nil {
				return err
			}
			if err := format.Inspect(a.out, spec, []format.Object{{Typed: v, Raw: raw}}); err != nil && failure == nil {
				return err
			}
			return failure
		},
	}
	addShortFormat(cmd, &spec)
	return cmd
}

func (a *app) serverVersion(ctx context.Context, v *versions) error {
	var server system.VersionResponse
	if err := a.get(ctx, "/version", nil, &server); err != nil {
		return err
	}
	v.Server = &server
	return nil
}

func (v versions) print(w io.Writer) {
	fmt.Fprintf(w, "Client: davit\n Version:           %s\n Go version:        %s\n OS/Arch:           %s/%s\n Context:           %s\n",
		v.Client.Version, v.Client.GoVersion, v.Client.Os, v.Client.Arch, v.Client.Context)
	s := v.Server
	if s == nil {
		return
	}
	name := s.Platform.Name
	if name == "" {
		name = "engine"
	}
	fmt.Fprintf(w, "\nServer: %s\n Version:           %s\n API version:       %s (minimum version %s)\n Go version:        %s\n OS/Arch:           %s/%s\n Kernel version:    %s\n",
		name, s.Version, s.APIVersion, s.MinAPIVersion, s.GoVersion, s.Os, s.Arch, s.KernelVersion)
}
