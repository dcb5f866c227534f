package cli

import (
	"strings"

	"davit/oci/ref"
)

// isMissingImage tells an image that is not here from other things that are not.
func isMissingImage(err error) bool { return strings.Contains(err.Error(), "No such image") }

// familiar is a reference as docker prints it, with a tag.
func familiar(image string) string {
	r, err := ref.Parse(image)
	if err != nil {
		return image
	}
	return r.WithDefaultTag().Familiar()
}
