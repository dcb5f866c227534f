package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"davit/cli/format"
)

func (a *app) rollbackCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rollback IMAGE[:TAG][@{N}]",
		Short: "Move a tag back to what it named before",
		Long: `Move a tag back to the image that it named before, or N moves ago ("davit tag --history IMAGE" shows
them). That is a move too: the same command once more undoes it. Containers keep the image that they run;
"davit replace" gives one the image that the tag names now.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var now struct{ Tag, ID string }
			if err := a.post(cmd.Context(), apiPath("davit/images", args[0], "rollback"), nil, nil, &now); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s is %s again\n", now.Tag, shortID(now.ID))
			return nil
		},
	}
}

type tagHistory struct {
	Tag     string
	History []struct {
		ID, Digest, By string
		Time           time.Time
		Here           bool
	}
}

type tagHistoryRow struct{ Move, ID, Digest, By, Since, At, State string }

var tagHistoryHeadings = format.Headings{
	"Move": "NAME", "ID": "IMAGE ID", "Digest": "DIGEST", "By": "BY", "Since": "SINCE", "At": "AT", "State": "STATE",
}

func (a *app) tagHistory(ctx context.Context, name, layout string) error {
	var h tagHistory
	if err := a.get(ctx, apiPath("davit/images", name, "history"), nil, &h); err != nil {
		return err
	}
	rows := make([]tagHistoryRow, len(h.History))
	for i, m := range h.History {
		row := tagHistoryRow{Move: fmt.Sprintf("%s@{%d}", h.Tag, i), ID: shortID(m.ID), Digest: m.Digest, By: m.By, State: "here"}
		if !m.Time.IsZero() {
			row.Since, row.At = since(m.Time), m.Time.Format(time.RFC3339)
		}
		switch {
		case m.ID == "":
			row.ID, row.State = "<none>", "tag removed"
		case !m.Here:
			row.State = "image removed"
		}
		rows[i] = row
	}
	return format.List(a.out, layout, `{{.Move}}\t{{.ID}}\t{{.By}}\t{{.Since}}\t{{.State}}`, tagHistoryHeadings, rows)
}
