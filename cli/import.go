package cli

import (
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"davit/api/client"
	"davit/cli/opts"
	"davit/oci/ref"
)

func (a *app) importCommand() *cobra.Command {
	var changes []string
	var message, platform string
	cmd := &cobra.Command{
		Use:   "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
		Short: "Import the contents from a tarball to create a filesystem image",
		Args:  rangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{"fromSrc": {"-"}, "changes": changes}
			setIf(query, "message", message)
			setIf(query, "platform", platform)
			if len(args) == 2 {
				name, err := ref.Parse(args[1])
				if err != nil {
					return err
				}
				name = name.WithDefaultTag()
				query.Set("repo", name.FamiliarName())
				query.Set("tag", name.Tag)
			}
			request := client.Request{Method: "POST", Path: "/images/create", Query: query}
			switch source := args[0]; {
			case source == "-":
				request.Body = a.in
			case isURL(source):
				query.Set("fromSrc", source)
			default:
				f, err := os.Open(source)
				if err != nil {
					return err
				}
				defer f.Close()
				request.Body = f
			}
			return a.follow(cmd.Context(), request, display(a.out))
		},
	}
	cmd.Flags().VarP(opts.ListOf(&changes), "change", "c", "Apply Dockerfile instruction to the created image")
	cmd.Flags().StringVarP(&message, "message", "m", "", "Set commit message for imported image")
	addPlatform(cmd, &platform)
	return cmd
}

// isURL says whether a source is fetched rather than opened.
func isURL(source string) bool {
	return strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://")
}
