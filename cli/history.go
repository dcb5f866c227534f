package cli

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"davit/cli/format"
)

type historyFlags struct {
	human, full, quiet bool
	format, platform   string
}

func (a *app) historyCommand() *cobra.Command {
	var f historyFlags
	cmd := &cobra.Command{
		Use:   "history [OPTIONS] IMAGE",
		Short: "Show the history of an image",
		Args:  exactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.history(cmd.Context(), args[0], f) },
	}
	cmd.Flags().BoolVarP(&f.human, "human", "H", true, "Print sizes and dates in human readable format")
	cmd.Flags().BoolVar(&f.full, "no-trunc", false, "Don't truncate output")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "Only show image IDs")
	cmd.Flags().StringVar(&f.platform, "platform", "", "Show history for the given platform")
	addFormat(cmd, &f.format)
	return cmd
}

type historyRow struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string
	ID           string
	Size         string
}

var historyHeadings = format.Headings{
	"Comment": "COMMENT", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "CreatedSince": "CREATED", "ID": "IMAGE", "Size": "SIZE",
}

func (a *app) history(ctx context.Context, name string, f historyFlags) error {
	platform, err := platformJSON(f.platform)
	if err != nil {
		return err
	}
	query := url.Values{}
	setIf(query, "platform", platform)
	var items []image.HistoryResponseItem
	if err := a.get(ctx, apiPath("images", name, "history"), query, &items); err != nil {
		return err
	}
	rows := make([]historyRow, len(items))
	for i, item := range items {
		rows[i] = newHistoryRow(item, f)
	}
	if f.quiet {
		return format.Quiet(a.out, rows, func(r historyRow) string { return r.ID })
	}
	return format.List(a.out, f.format, `{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}`, historyHeadings, rows)
}

func newHistoryRow(item image.HistoryResponseItem, f historyFlags) historyRow {
	created := time.Unix(item.Created, 0)
	row := historyRow{
		Comment: item.Comment, CreatedAt: created.Format(time.RFC3339), CreatedBy: strings.ReplaceAll(item.CreatedBy, "\t", " "),
		ID: item.ID, Size: size(item.Size), CreatedSince: since(created),
	}
	if !f.human {
		row.CreatedSince, row.Size = row.CreatedAt, strconv.FormatInt(item.Size, 10)
	}
	if !f.full {
		row.ID, row.CreatedBy = shortID(item.ID), shortened(row.CreatedBy, 45)
	}
	return row
}

// shortened cuts a text to a number of characters, the last of which says so.
func shortened(text string, limit int) string {
	runes := []rune(text)
	if len(runes) <= limit {
		return text
	}
	return string(runes[:limit-1]) + "…"
}
