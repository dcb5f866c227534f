package cli

import (
	"net/url"

	"github.com/spf13/cobra"

	"davit/oci/errdefs"
	"davit/oci/ref"
)

func (a *app) tagCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := ref.Parse(args[1])
			if err != nil {
				return err
			}
			if target.Digest != "" {
				return errdefs.Invalid("refusing to create a tag with a digest reference")
			}
			target = target.WithDefaultTag()
			query := url.Values{"repo": {target.FamiliarName()}, "tag": {target.Tag}}
			return a.post(cmd.Context(), apiPath("images", args[0], "tag"), query, nil, nil)
		},
	}
}
