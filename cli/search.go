package cli

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"

	"davit/cli/format"
)

// searchCommand asks the engine, which asks Docker Hub.
func (a *app) searchCommand() *cobra.Command {
	var full bool
	var limit int
	var filters []string
	var spec string
	cmd := &cobra.Command{
		Use:   "search [OPTIONS] TERM",
		Short: "Search Docker Hub for images",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query, err := filterQuery(filters)
			if err != nil {
				return err
			}
			query.Set("term", args[0])
			if limit > 0 {
				query.Set("limit", strconv.Itoa(limit))
			}
			return a.search(cmd.Context(), query, full, spec)
		},
	}
	cmd.Flags().BoolVar(&full, "no-trunc", false, "Don't truncate output")
	cmd.Flags().IntVar(&limit, "limit", 0, "Max number of search results")
	addFilter(cmd, &filters)
	addFormat(cmd, &spec)
	return cmd
}

type searchRow struct {
	Description string
	IsOfficial  string
	Name        string
	StarCount   string
}

var searchHeadings = format.Headings{"Description": "DESCRIPTION", "IsOfficial": "OFFICIAL", "Name": "NAME", "StarCount": "STARS"}

func (a *app) search(ctx context.Context, query url.Values, full bool, spec string) error {
	header, err := a.registryAuth(ctx, "docker.io")
	if err != nil {
		return err
	}
	var found []registry.SearchResult
	if err := a.getWith(ctx, "/images/search", query, header, &found); err != nil {
		return err
	}
	rows := make([]searchRow, len(found))
	for i, f := range found {
		rows[i] = searchRow{Description: strings.ReplaceAll(f.Description, "\n", " "), Name: f.Name, StarCount: strconv.Itoa(f.StarCount)}
		if !full {
			rows[i].Description = shortened(rows[i].Description, 45)
		}
		if f.IsOfficial {
			rows[i].IsOfficial = "[OK]"
		}
	}
	return format.List(a.out, spec, `{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}`, searchHeadings, rows)
}
