package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"davit/internal/version"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/auth"
	"davit/registry/client"
)

// useRegistry is "davit registry tags", "rollback", "quota" and "retention".
func useRegistry(ctx context.Context, args []string, out, errs io.Writer, log *slog.Logger) error {
	flags := flag.NewFlagSet("davit registry "+args[0], flag.ContinueOnError)
	flags.SetOutput(errs)
	var history, dry bool
	switch args[0] {
	case "tags":
		flags.BoolVar(&history, "history", false, "what each tag named, when and by whom; deleted tags too")
	case "retention":
		flags.BoolVar(&dry, "dry-run", false, "say what would go, delete nothing")
	}
	names, err := interspersed(flags, args[1:])
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return errdefs.Invalid("registry %s takes one name: see davit registry --help", args[0])
	}
	spelled, number, err := moveNumber(names[0])
	if err != nil {
		return err
	}
	name, err := ref.Parse(spelled)
	if err != nil {
		return err
	}
	repo, err := remote(ctx, name, log)
	if err != nil {
		return err
	}
	defer repo.Close()
	switch {
	case args[0] == "rollback":
		return rollback(ctx, repo, name, number, out)
	case args[0] == "quota":
		return printQuota(ctx, repo, out)
	case args[0] == "retention":
		return retain(ctx, repo, dry, out)
	case history:
		return printHistory(ctx, repo, out)
	}
	tags, err := repo.Tags(ctx)
	for _, tag := range tags {
		fmt.Fprintln(out, tag)
	}
	return err
}

// interspersed parses flags before and after other arguments, and returns the latter.
func interspersed(flags *flag.FlagSet, args []string) (others []string, err error) {
	for err = flags.Parse(args); err == nil && flags.NArg() > 0; err = flags.Parse(args) {
		others, args = append(others, flags.Arg(0)), flags.Args()[1:]
	}
	return others, err
}

// moveNumber takes "@{N}" or "@{-N}" off a name; without it N is 1, the move before the present one.
func moveNumber(s string) (name string, number int, err error) {
	name, rest, found := strings.Cut(s, "@{")
	if !found {
		return s, 1, nil
	}
	digits, ok := strings.CutSuffix(rest, "}")
	number, err = strconv.Atoi(strings.TrimPrefix(digits, "-"))
	if err != nil || !ok {
		return "", 0, errdefs.Invalid("invalid name %q: want REPOSITORY:TAG@{N}", s)
	}
	return name, number, nil
}

func remote(ctx context.Context, name ref.Ref, log *slog.Logger) (*client.Repository, error) {
	config, err := auth.LoadConfig(auth.DefaultConfigPath())
	if err != nil {
		return nil, err
	}
	creds, err := config.Get(ctx, name.Domain)
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Options{UserAgent: "davit/" + version.Version, Log: log, Attempts: 2})
	if err != nil {
		return nil, err
	}
	return c.Repository(name, creds)
}

func printHistory(ctx context.Context, repo *client.Repository, out io.Writer) error {
	tags, err := repo.History(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "TAG\tDIGEST\tTIME\tBY")
	for _, tag := range tags {
		for n, move := range tag.History {
			digest := cmp.Or(string(move.Digest), "deleted")
			fmt.Fprintf(table, "%s@{%d}\t%s\t%s\t%s\n", tag.Tag, n, digest, move.Time.Local().Format(time.DateTime), move.By)
		}
	}
	return table.Flush()
}

func rollback(ctx context.Context, repo *client.Repository, name ref.Ref, number int, out io.Writer) error {
	if name.Tag == "" {
		return errdefs.Invalid("registry rollback wants REPOSITORY:TAG, %q has no tag", name.Familiar())
	}
	log, err := repo.TagHistory(ctx, name.Tag)
	if err != nil {
		return err
	}
	if number >= len(log.History) {
		return errdefs.NotFound("the history of %s ends at @{%d}", name.Familiar(), len(log.History)-1)
	}
	d := log.History[number].Digest
	if d == "" {
		return errdefs.Invalid("%s@{%d} is when the tag was deleted", name.Familiar(), number)
	}
	if err := repo.Rollback(ctx, name.Tag, d); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %s\n", name.Familiar(), d)
	return nil
}
