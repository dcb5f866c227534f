package cli

import (
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"
)

// imageCommand holds the verbs of images again, under docker's newer names.
func (a *app) imageCommand() *cobra.Command {
	inspect, _ := a.inspector("image", "inspect [OPTIONS] IMAGE [IMAGE...]", "Display detailed information on one or more images")
	list, remove := a.imagesCommand(), a.rmiCommand()
	list.Use, list.Aliases = "ls [OPTIONS] [REPOSITORY[:TAG]]", []string{"list"}
	remove.Use, remove.Aliases = "rm [OPTIONS] IMAGE [IMAGE...]", []string{"remove"}
	return groupCommand("image", "Manage images",
		a.buildCommand(), a.historyCommand(), a.importCommand(), inspect, a.loadCommand(), list, a.pruneImagesCommand(), a.pullCommand(),
		a.pushCommand(), remove, a.saveCommand(), a.tagCommand(), a.rollbackCommand())
}

func (a *app) pruneImagesCommand() *cobra.Command {
	var all, force bool
	var filters []string
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove unused images",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			warning, dangling := "WARNING! This will remove all dangling images.", "dangling=true"
			if all {
				warning = "WARNING! This will remove all images without at least one container associated to them."
				dangling = "dangling=false"
			}
			if !force && !a.confirm(warning) {
				return nil
			}
			query, err := filterQuery(append(filters, dangling))
			if err != nil {
				return err
			}
			var report image.PruneReport
			if err := a.post(cmd.Context(), "/images/prune", query, nil, &report); err != nil {
				return err
			}
			a.printList("Deleted Images:", deletedLines(report.ImagesDeleted))
			a.printReclaimed(report.SpaceReclaimed)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused images, not just dangling ones")
	addPruneFlags(cmd, &force, &filters)
	return cmd
}

// deletedLines says of each name and layer what happened to it.
func deletedLines(list []image.DeleteResponse) []string {
	var lines []string
	for _, d := range list {
		if d.Deleted != "" {
			lines = append(lines, "deleted: "+d.Deleted)
		} else {
			lines = append(lines, "untagged: "+d.Untagged)
		}
	}
	return lines
}
