package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"davit/registry/auth"
)

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout [SERVER]",
		Short: "Log out from a registry",
		Long:  "Forget the credentials for a registry. Without a server, for Docker Hub.",
		Args:  rangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := a.credentials()
			if err != nil {
				return err
			}
			server := server(args)
			known, err := config.Erase(cmd.Context(), auth.Host(server))
			if err != nil {
				return fmt.Errorf("could not erase credentials: %w", err)
			}
			if known {
				fmt.Fprintln(a.out, "Removing login credentials for", server)
			} else {
				fmt.Fprintln(a.out, "Not logged in to", server)
			}
			return nil
		},
	}
}
