package cli

import (
	"encoding/json"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"davit/cli/opts"
	"davit/oci/errdefs"
)

// addPlatform adds --platform, by default what the environment says.
func addPlatform(cmd *cobra.Command, platform *string) {
	cmd.Flags().StringVar(platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Platform in the form os[/arch[/variant]]")
}

// addIgnored accepts the flag of Docker's notary, which scripts still pass and which nothing needs.
func addIgnored(cmd *cobra.Command) {
	cmd.Flags().Bool("disable-content-trust", true, "Skip image verification (accepted, without effect)")
	_ = cmd.Flags().MarkHidden("disable-content-trust") // fails for an unknown flag only
}

// setIf sets a query parameter that is not empty.
func setIf(query url.Values, name, value string) {
	if value != "" {
		query.Set(name, value)
	}
}

// setTrue sets a query parameter that is true.
func setTrue(query url.Values, name string, value bool) {
	if value {
		query.Set(name, "1")
	}
}

// filterQuery turns --filter key=value flags into the API's parameter. Without any it is empty.
func filterQuery(filters []string) (url.Values, error) {
	query := url.Values{}
	if len(filters) == 0 {
		return query, nil
	}
	set := map[string]map[string]bool{}
	for _, filter := range filters {
		key, value, ok := strings.Cut(filter, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if !ok || key == "" {
			return nil, errdefs.Invalid("invalid argument %q for \"-f, --filter\" flag: bad format of filter (expected name=value)", filter)
		}
		if set[key] == nil {
			set[key] = map[string]bool{}
		}
		set[key][strings.TrimSpace(value)] = true
	}
	encoded, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	query.Set("filters", string(encoded))
	return query, nil
}

// pairs turns key=value words into a map; a word without "=" has the empty value.
func pairs(words []string) map[string]string {
	if len(words) == 0 {
		return nil
	}
	all := make(map[string]string, len(words))
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		all[key] = value
	}
	return all
}

func addFilter(cmd *cobra.Command, filters *[]string) {
	cmd.Flags().VarP(opts.ListOf(filters), "filter", "f", "Filter output based on conditions provided")
}

const formatHelp = `Format output: "table", "table TEMPLATE", "json", or a Go template`

func addFormat(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVar(format, "format", "", formatHelp)
}

// addShortFormat adds --format of commands that have no other use for -f.
func addShortFormat(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "format", "f", "", formatHelp)
}

// platformJSON is a platform as the API's newer parameters have it; os alone means the default machine.
func platformJSON(platform string) (string, error) {
	if platform == "" {
		return "", nil
	}
	words := strings.Split(platform, "/")
	if len(words) > 3 {
		return "", errdefs.Invalid("invalid platform %q: want os[/arch[/variant]]", platform)
	}
	fields := map[string]string{}
	for i, name := range []string{"os", "architecture", "variant"}[:len(words)] {
		fields[name] = words[i]
	}
	encoded, err := json.Marshal(fields)
	return string(encoded), err
}
