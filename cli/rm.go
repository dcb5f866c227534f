package cli

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

func (a *app) rmCommand() *cobra.Command {
	var force, link, volumes bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] CONTAINER [CONTAINER...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more containers",
		Args:    minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{}
			setTrue(query, "force", force)
			setTrue(query, "link", link)
			setTrue(query, "v", volumes)
			engine, err := a.client()
			if err != nil {
				return err
			}
			results := concurrently(args, func(name string) error {
				return engine.Delete(cmd.Context(), "/containers/"+url.PathEscape(strings.Trim(name, "/")), query, nil)
			})
			return a.each(args, func(name string) error { return results[name] })
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	cmd.Flags().BoolVarP(&link, "link", "l", false, "Remove the specified link")
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	return cmd
}

// concurrently does something to all names, a few dozen at a time, and returns what became of each.
func concurrently(names []string, do func(name string) error) map[string]error {
	return concurrentlyInto(names, map[string]struct{}{}, func(name string) (struct{}, error) { return struct{}{}, do(name) })
}

// concurrentlyInto also keeps what do returned.
func concurrentlyInto[T any](names []string, into map[string]T, do func(name string) (T, error)) map[string]error {
	const atOnce = 32
	failed := make(map[string]error, len(names))
	var mu sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, name := range names {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			value, err := do(name)
			mu.Lock()
			defer mu.Unlock()
			into[name], failed[name] = value, err
		})
	}
	all.Wait()
	return failed
}

func (a *app) waitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "wait CONTAINER [CONTAINER...]",
		Short: "Block until one or more containers stop, then print their exit codes",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := a.client()
			if err != nil {
				return err
			}
			return a.failures(args, func(name string) error {
				var done container.WaitResponse
				if err := engine.Post(cmd.Context(), "/containers/"+url.PathEscape(name)+"/wait", nil, nil, &done); err != nil {
					return err
				}
				fmt.Fprintln(a.out, done.StatusCode)
				return nil
			})
		},
	}
}

func (a *app) renameCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rename CONTAINER NEW_NAME",
		Short: "Rename a container",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := a.client()
			if err != nil {
				return err
			}
			return engine.Post(cmd.Context(), "/containers/"+url.PathEscape(args[0])+"/rename", url.Values{"name": {args[1]}}, nil, nil)
		},
	}
}

func (a *app) portCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "port CONTAINER [PRIVATE_PORT[/PROTO]]",
		Short: "List port mappings or a specific mapping for the container",
		Args:  rangeArgs(1, 2),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.ports(cmd.Context(), args) },
	}
}

func (a *app) ports(ctx context.Context, args []string) error {
	engine, err := a.client()
	if err != nil {
		return err
	}
	var inspected container.InspectResponse
	if err := engine.Get(ctx, "/containers/"+url.PathEscape(args[0])+"/json", nil, &inspected); err != nil {
		return err
	}
	wanted := ""
	if len(args) == 2 {
		wanted = args[1]
		if !strings.Contains(wanted, "/") {
			wanted += "/tcp"
		}
	}
	var lines []string
	if inspected.NetworkSettings != nil {
		lines = portLines(inspected.NetworkSettings.Ports, wanted)
	}
	if wanted != "" && len(lines) == 0 {
		return fmt.Errorf("Error: No public port '%s' published for %s", wanted, args[0])
	}
	for _, line := range lines {
		fmt.Fprintln(a.out, line)
	}
	return nil
}

func (a *app) topCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top CONTAINER [ps OPTIONS]",
		Short: "Display the running processes of a container",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := a.client()
			if err != nil {
				return err
			}
			query := url.Values{}
			setIf(query, "ps_args", strings.Join(args[1:], " "))
			var top container.TopResponse
			if err := engine.Get(cmd.Context(), "/containers/"+url.PathEscape(args[0])+"/top", query, &top); err != nil {
				return err
			}
			return a.columns(append([][]string{top.Titles}, top.Processes...))
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (a *app) diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff CONTAINER",
		Short: "Inspect changes to files or directories on a container's filesystem",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := a.client()
			if err != nil {
				return err
			}
			var changes []container.FilesystemChange
			if err := engine.Get(cmd.Context(), "/containers/"+url.PathEscape(args[0])+"/changes", nil, &changes); err != nil {
				return err
			}
			for _, change := range changes {
				fmt.Fprintln(a.out, change.Kind, change.Path)
			}
			return nil
		},
	}
}
