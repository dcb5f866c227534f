package cli

import (
	"net/url"
	"strings"
)

// apiPath joins the parts of a request's path and escapes what a name may hold; slashes stay, as the
// Engine API has them in image names.
func apiPath(parts ...string) string {
	path := url.URL{Path: "/" + strings.Join(parts, "/")}
	return path.EscapedPath()
}

// shortID is an ID as lists show it: 12 digits, no algorithm.
func shortID(id string) string {
	const shown = 12
	_, digits, ok := strings.Cut(id, ":")
	if !ok {
		digits = id
	}
	return digits[:min(len(digits), shown)]
}
