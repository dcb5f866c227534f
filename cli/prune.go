package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"
)

// pruneFlags are the flags of system prune.
type pruneFlags struct {
	all, force, volumes bool
	filters             []string
}

func (a *app) pruneAllCommand() *cobra.Command {
	f := &pruneFlags{}
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove unused data",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !f.force && !a.confirm(f.warning()) {
				return nil
			}
			return a.pruneAll(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.all, "all", "a", false, "Remove all unused images not just dangling ones")
	flags.BoolVar(&f.volumes, "volumes", false, "Prune anonymous volumes")
	addPruneFlags(cmd, &f.force, &f.filters)
	return cmd
}

// warning lists what will be gone.
func (f *pruneFlags) warning() string {
	lines := []string{"WARNING! This will remove:", "  - all stopped containers", "  - all networks not used by at least one container"}
	if f.volumes {
		lines = append(lines, "  - all anonymous volumes not used by at least one container")
	}
	if f.all {
		lines = append(lines, "  - all images without at least one container associated to them", "  - all build cache")
	} else {
		lines = append(lines, "  - all dangling images", "  - unused build cache")
	}
	if len(f.filters) > 0 {
		lines = append(lines, "", "  Items to be pruned will be filtered with:")
		for _, filter := range f.filters {
			lines = append(lines, "  - "+filter)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// pruned is any prune's answer.
type pruned struct {
	ContainersDeleted, NetworksDeleted, VolumesDeleted, CachesDeleted []string

	ImagesDeleted  []image.DeleteResponse
	SpaceReclaimed uint64
}

// pruneAll asks for one kind after the other, containers first, since they keep the others in use.
func (a *app) pruneAll(ctx context.Context, f *pruneFlags) error {
	kinds := []struct {
		path, title string
		extra       []string
		skip        bool
	}{
		{path: "/containers/prune", title: "Deleted Containers:"},
		{path: "/networks/prune", title: "Deleted Networks:"},
		{path: "/volumes/prune", title: "Deleted Volumes:", skip: !f.volumes},
		{path: "/images/prune", title: "Deleted Images:", extra: []string{fmt.Sprintf("dangling=%t", !f.all)}},
		{path: "/build/prune", title: "Deleted build cache objects:"},
	}
	var total uint64
	for _, k := range kinds {
		if k.skip {
			continue
		}
		query, err := filterQuery(append(k.extra, f.filters...))
		if err != nil {
			return err
		}
		if f.all && k.path == "/build/prune" {
			query.Set("all", "1")
		}
		var report pruned
		if err := a.post(ctx, k.path, query, nil, &report); err != nil {
			return err
		}
		for _, names := range [][]string{
			report.ContainersDeleted, report.NetworksDeleted, report.VolumesDeleted, deletedLines(report.ImagesDeleted), report.CachesDeleted,
		} {
			a.printList(k.title, names)
		}
		total += report.SpaceReclaimed
	}
	a.printReclaimed(total)
	return nil
}

func (a *app) builderCommand() *cobra.Command {
	return groupCommand("builder", "Manage builds", a.buildCommand(), a.pruneCacheCommand())
}

func (a *app) pruneCacheCommand() *cobra.Command {
	var all, force bool
	var filters []string
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove build cache",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			warning := "WARNING! This will remove all dangling build cache."
			if all {
				warning = "WARNING! This will remove all build cache."
			}
			if !force && !a.confirm(warning) {
				return nil
			}
			query, err := filterQuery(filters)
			if err != nil {
				return err
			}
			setTrue(query, "all", all)
			var report pruned
			if err := a.post(cmd.Context(), "/build/prune", query, nil, &report); err != nil {
				return err
			}
			a.printList("Deleted build cache objects:", report.CachesDeleted)
			a.printReclaimed(report.SpaceReclaimed)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused build cache, not just dangling ones")
	addPruneFlags(cmd, &force, &filters)
	return cmd
}
