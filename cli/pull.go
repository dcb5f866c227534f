package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"

	"github.com/spf13/cobra"

	"davit/api/client"
	"davit/cli/progress"
	"davit/oci/ref"
	"davit/registry/auth"
)

func (a *app) pullCommand() *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use:   "pull [OPTIONS] NAME[:TAG|@DIGEST]",
		Short: "Download an image from a registry",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := ref.Parse(args[0])
			if err != nil {
				return err
			}
			tagged := name.Tag != "" || name.Digest != ""
			if all && tagged {
				return errors.New("tag can't be used with --all-tags/-a")
			}
			if all {
				return a.pullAll(cmd.Context(), name, platform, quiet)
			}
			if !tagged && !quiet {
				fmt.Fprintln(a.out, "Using default tag: latest")
			}
			if err := a.pullImage(cmd.Context(), args[0], platform, quiet, a.out); err != nil {
				return err
			}
			fmt.Fprintln(a.out, name.WithDefaultTag())
			return nil
		},
	}
	cmd.Flags().BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	addPlatform(cmd, &platform)
	addIgnored(cmd)
	return cmd
}

// pullImage has the engine pull one image; the tag is "latest" by default. Quiet shows nothing.
func (a *app) pullImage(ctx context.Context, image, platform string, quiet bool, out io.Writer) error {
	name, err := ref.Parse(image)
	if err != nil {
		return err
	}
	name = name.WithDefaultTag()
	version := name.Tag
	if name.Digest != "" {
		version = string(name.Digest)
	}
	return a.pullVersion(ctx, name, version, platform, quiet, out)
}

func (a *app) pullAll(ctx context.Context, name ref.Ref, platform string, quiet bool) error {
	if err := a.pullVersion(ctx, name, "", platform, quiet, a.out); err != nil {
		return err
	}
	fmt.Fprintln(a.out, name.Name())
	return nil
}

func (a *app) pullVersion(ctx context.Context, name ref.Ref, version, platform string, quiet bool, out io.Writer) error {
	query := url.Values{"fromImage": {name.FamiliarName()}}
	setIf(query, "tag", version)
	setIf(query, "platform", platform)
	return a.transfer(ctx, name, "/images/create", query, quiet, out)
}

// transfer posts a pull or push with the credentials of the image's registry, and follows it.
func (a *app) transfer(ctx context.Context, name ref.Ref, path string, query url.Values, quiet bool, out io.Writer) error {
	header, err := a.registryAuth(ctx, name.Domain)
	if err != nil {
		return err
	}
	if quiet {
		out = io.Discard
	}
	return a.follow(ctx, client.Request{Method: "POST", Path: path, Query: query, Header: header}, display(out))
}

// display shows progress on a stream as fits it.
func display(out io.Writer) *progress.Display {
	return &progress.Display{Out: out, Terminal: isTerminal(out), Width: terminalWidth(out)}
}

// follow sends a request and shows the messages that answer it.
func (a *app) follow(ctx context.Context, r client.Request, display *progress.Display) error {
	engine, err := a.client()
	if err != nil {
		return err
	}
	response, err := engine.Do(ctx, r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return display.Show(response.Body)
}

// registryAuth is the header with what the user is known by at a registry; the API wants it for a user who
// has not logged in too.
func (a *app) registryAuth(ctx context.Context, host string) (client.Header, error) {
	config, err := a.credentials()
	if err != nil {
		return nil, err
	}
	found, err := config.Get(ctx, host)
	if err != nil {
		return nil, err
	}
	return client.Header{"X-Registry-Auth": found.EncodeHeader()}, nil
}

// credentials reads the file in which logins are kept.
func (a *app) credentials() (*auth.ConfigFile, error) {
	return auth.LoadConfig(filepath.Join(a.global.config, "config.json"))
}
