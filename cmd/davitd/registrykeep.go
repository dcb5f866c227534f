package main

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"time"

	"davit/oci/errdefs"
	"davit/registry/quota"
	registry "davit/registry/server"
)

const defaultRoot = "/var/lib/davit/registry"

// scrubFlags are the flags by which a registry looks after its content.
func scrubFlags(flags *flag.FlagSet, c *registry.Config) {
	flags.DurationVar(&c.ScrubEvery, "scrub-every", 7*24*time.Hour, "how often all content is read and compared with its digests; what does not match is put aside; 0 for never")
	c.ScrubRate = 50 << 20
	sizeVar(flags, &c.ScrubRate, "scrub-rate", "bytes a second that a scrub reads at most, such as 10M (default 50M)")
}

func sizeVar(flags *flag.FlagSet, to *int64, name, usage string) {
	flags.Func(name, usage, func(s string) error {
		size, err := quota.ParseSize(s)
		*to = int64(size)
		return err
	})
}

// quotaFlags are the bounds of repositories for which the file of rules has none.
func quotaFlags(flags *flag.FlagSet, c *registry.Config) {
	flags.Func("quota", "bytes that a repository may hold for which --config has no quota, such as 50G (default any number)", func(s string) (err error) {
		c.Quota.Bytes, err = quota.ParseSize(s)
		return err
	})
	flags.IntVar(&c.Quota.Tags, "quota-tags", 0, "tags that a repository may have for which --config has no quota; 0 for any number")
}

// maintainRegistry is what works on a registry's content itself, while registries serve it or not.
func maintainRegistry(ctx context.Context, args []string, out, errs io.Writer, log *slog.Logger) error {
	flags := flag.NewFlagSet("davit registry "+args[0], flag.ContinueOnError)
	flags.SetOutput(errs)
	root := flags.String("root", defaultRoot, "directory or bucket of the content, as for serve")
	rate := int64(0)
	sizeVar(flags, &rate, "rate", "bytes a second to read at most, such as 50M (default no limit)")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errdefs.Invalid("registry %s takes no arguments: %q", args[0], flags.Arg(0))
	}
	return registry.ScrubRoot(ctx, *root, rate, out, log)
}
