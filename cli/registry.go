package cli

import (
	"fmt"
	"os"
	"syscall"

	"github.com/spf13/cobra"
)

// registryCommand hands over to davitd, where the registry's code is.
func (a *app) registryCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "registry COMMAND",
		Short:              "Run a registry of one's own, see and roll back its tags (davit registry --help)",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := engineProgram()
			if err != nil {
				return fmt.Errorf("find davitd, which is the registry too: %w", err)
			}
			return syscall.Exec(path, append([]string{path, "registry"}, args...), os.Environ())
		},
	}
}
