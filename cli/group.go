package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// groupCommand holds verbs of one kind of object: davit image ls.
func groupCommand(name, short string, subs ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{
		Use:   name + " COMMAND",
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("davit: unknown command: %s %s\n\nUsage:  %s\n\nRun '%s --help' for more information",
					cmd.CommandPath(), args[0], cmd.UseLine(), cmd.CommandPath())
			}
			return cmd.Help()
		},
	}
	for _, sub := range subs {
		sub.DisableFlagsInUseLine = true
		group.AddCommand(sub)
	}
	return group
}
