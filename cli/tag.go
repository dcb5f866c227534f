package cli

import (
	"net/url"

	"github.com/spf13/cobra"

	"davit/oci/errdefs"
	"davit/oci/ref"
)

func (a *app) tagCommand() *cobra.Command {
	var history bool
	var format string
	cmd := &cobra.Command{
		Use:   "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG] | tag --history IMAGE[:TAG]",
		Short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		Long: `Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE.

With --history, show where a tag has led to over time, the latest first. A line of it can be used wherever
an image is: "davit run app@{1}" runs what app:latest was before. An image that its tag has left stays, as
<none>, until "davit image prune" or "davit rmi" removes it.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if history {
				return exactArgs(1)(cmd, args)
			}
			return exactArgs(2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if history {
				return a.tagHistory(cmd.Context(), args[0], format)
			}
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
	cmd.Flags().BoolVar(&history, "history", false, "Show where the tag has led to over time")
	addFormat(cmd, &format)
	return cmd
}
