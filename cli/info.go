package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"davit/cli/format"
)

func (a *app) infoCommand() *cobra.Command {
	var spec string
	cmd := &cobra.Command{
		Use:   "info [OPTIONS]",
		Short: "Display system-wide information",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var raw json.RawMessage
			if err := a.get(cmd.Context(), "/info", nil, &raw); err != nil {
				return err
			}
			var info system.Info
			if err := json.Unmarshal(raw, &info); err != nil {
				return fmt.Errorf("read the engine's answer: %w", err)
			}
			if spec != "" {
				return format.Inspect(a.out, spec, []format.Object{{Typed: info, Raw: raw}})
			}
			printInfo(a.out, info)
			for _, w := range info.Warnings {
				fmt.Fprintln(a.err, w)
			}
			return nil
		},
	}
	addShortFormat(cmd, &spec)
	return cmd
}

// printInfo prints what an engine says of itself and its host, in docker's order, without empty fields.
func printInfo(w io.Writer, i system.Info) {
	line := func(indent, name string, value any) {
		if text := fmt.Sprint(value); text != "" {
			fmt.Fprintf(w, "%s%s: %s\n", indent, name, text)
		}
	}
	line(" ", "Containers", i.Containers)
	line("  ", "Running", i.ContainersRunning)
	line("  ", "Paused", i.ContainersPaused)
	line("  ", "Stopped", i.ContainersStopped)
	line(" ", "Images", i.Images)
	line(" ", "Server Version", i.ServerVersion)
	line(" ", "Storage Driver", i.Driver)
	for _, pair := range i.DriverStatus {
		line("  ", pair[0], pair[1])
	}
	line(" ", "Logging Driver", i.LoggingDriver)
	line(" ", "Cgroup Driver", i.CgroupDriver)
	line(" ", "Cgroup Version", i.CgroupVersion)
	fmt.Fprintln(w, " Plugins:")
	line("  ", "Volume", strings.Join(i.Plugins.Volume, " "))
	line("  ", "Network", strings.Join(i.Plugins.Network, " "))
	line("  ", "Log", strings.Join(i.Plugins.Log, " "))
	line(" ", "Runtimes", strings.Join(slices.Sorted(maps.Keys(i.Runtimes)), " "))
	line(" ", "Default Runtime", i.DefaultRuntime)
	line(" ", "Init Binary", i.InitBinary)
	printSecurity(w, i.SecurityOptions)
	line(" ", "Kernel Version", i.KernelVersion)
	line(" ", "Operating System", i.OperatingSystem)
	line(" ", "OSType", i.OSType)
	line(" ", "Architecture", i.Architecture)
	line(" ", "CPUs", i.NCPU)
	line(" ", "Total Memory", units.BytesSize(float64(i.MemTotal)))
	line(" ", "Name", i.Name)
	line(" ", "ID", i.ID)
	line(" ", "Root Dir", i.DockerRootDir)
	line(" ", "Debug Mode", i.Debug)
	line(" ", "HTTP Proxy", i.HTTPProxy)
	line(" ", "HTTPS Proxy", i.HTTPSProxy)
	line(" ", "No Proxy", i.NoProxy)
	printLines(w, "Labels", i.Labels)
	if r := i.RegistryConfig; r != nil {
		var insecure []string
		for _, network := range r.InsecureRegistryCIDRs {
			insecure = append(insecure, network.String())
		}
		printLines(w, "Insecure Registries", insecure)
		printLines(w, "Registry Mirrors", r.Mirrors)
	}
	line(" ", "Live Restore Enabled", i.LiveRestoreEnabled)
}

func printLines(w io.Writer, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, " %s:\n", title)
	for _, l := range lines {
		fmt.Fprintf(w, "  %s\n", l)
	}
}

// printSecurity prints options of the form name=seccomp,profile=builtin.
func printSecurity(w io.Writer, options []string) {
	if len(options) == 0 {
		return
	}
	fmt.Fprintln(w, " Security Options:")
	for _, option := range options {
		for part := range strings.SplitSeq(option, ",") {
			key, value, ok := strings.Cut(part, "=")
			switch {
			case !ok || key == "name":
				fmt.Fprintf(w, "  %s\n", strings.TrimPrefix(part, "name="))
			default:
				fmt.Fprintf(w, "   %s%s: %s\n", strings.ToUpper(key[:min(1, len(key))]), key[min(1, len(key)):], value)
			}
		}
	}
}
