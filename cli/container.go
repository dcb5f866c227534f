package cli

import (
	"fmt"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"davit/cli/opts"
)

// containerCommand holds the verbs of containers again, under docker's newer names.
func (a *app) containerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "container", Short: "Manage containers", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	for _, v := range containerVerbs {
		if v.name != "ps" && v.name != "inspect" {
			cmd.AddCommand(v.build(a))
		}
	}
	list := a.listContainers("ls [OPTIONS]")
	list.Aliases = []string{"ps", "list"}
	inspect, _ := a.inspector("container", "inspect [OPTIONS] CONTAINER [CONTAINER...]", "Display detailed information on one or more containers")
	cmd.AddCommand(list, inspect, a.pruneContainersCommand())
	return cmd
}

func (a *app) pruneContainersCommand() *cobra.Command {
	var force bool
	var filter []string
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove all stopped containers",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force && !a.confirm("WARNING! This will remove all stopped containers.") {
				return nil
			}
			query, err := filterQuery(filter)
			if err != nil {
				return err
			}
			engine, err := a.client()
			if err != nil {
				return err
			}
			var report container.PruneReport
			if err := engine.Post(cmd.Context(), "/containers/prune", query, nil, &report); err != nil {
				return err
			}
			if len(report.ContainersDeleted) > 0 {
				fmt.Fprintln(a.out, "Deleted Containers:")
				for _, id := range report.ContainersDeleted {
					fmt.Fprintln(a.out, id)
				}
				fmt.Fprintln(a.out)
			}
			fmt.Fprintln(a.out, "Total reclaimed space:", units.HumanSize(float64(report.SpaceReclaimed)))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().Var(opts.ListOf(&filter), "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}
