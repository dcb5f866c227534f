package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"davit/registry/client"
	"davit/registry/quota"
)

// printQuota is "davit registry quota".
func printQuota(ctx context.Context, repo *client.Repository, out io.Writer) error {
	usage, err := repo.Usage(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "QUOTA\tFOR\tUSED\tOF\tTAGS\tOF")
	fmt.Fprintf(table, "-\tthis repository\t%s\t-\t%d\t-\n", quota.Size(usage.Bytes), usage.Tags)
	for _, q := range usage.Quotas {
		whose := "each repository"
		if q.Together {
			whose = strings.Join(q.Repositories, ", ") + " together"
		}
		bytes, tags := "any", "any"
		if q.Bytes > 0 {
			bytes = quota.Size(q.Bytes).String()
		}
		if q.Tags > 0 {
			tags = strconv.Itoa(q.Tags)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", q.Name, whose, quota.Size(q.UsedBytes), bytes, q.UsedTags, tags)
	}
	return table.Flush()
}

// retain is "davit registry retention": what the rules let go, before the next collection does it.
func retain(ctx context.Context, repo *client.Repository, dry bool, out io.Writer) error {
	plan, err := repo.Retention(ctx, !dry)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "GOES\tDIGEST\tSINCE\tRULE")
	for _, tag := range plan.Tags {
		fmt.Fprintf(table, "tag %s\t%s\t%s\t%s\n", tag.Tag, tag.Digest, tag.Moved.Local().Format(time.DateTime), tag.Rule)
	}
	for _, m := range plan.Manifests {
		fmt.Fprintf(table, "untagged\t%s\t%s\t%s\n", m.Digest, m.Used.Local().Format(time.DateTime), m.Rule)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	verb := "deleted"
	if dry {
		verb = "would be deleted"
	}
	_, err = fmt.Fprintf(out, "%d tags and %d manifests %s; %d tags stay\n", len(plan.Tags), len(plan.Manifests), verb, plan.KeptTags)
	return err
}
