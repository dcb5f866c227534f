package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"davit/oci/errdefs"
	registry "davit/registry/server"
)

const registryUsage = `Usage:  davit registry serve [OPTIONS]
        davit registry login [--days N] HOST
        davit registry tags [--history] REPOSITORY
        davit registry rollback REPOSITORY:TAG[@{N}]
        davit registry quota REPOSITORY
        davit registry retention [--dry-run] REPOSITORY
        davit registry forget [--root ROOT] PERSON
        davit registry scrub [--root ROOT] [--rate BYTES]

Run a registry: push to it and pull from it with davit, docker, podman or skopeo. Every tag keeps a log of
what it named, and goes back to any of it.

Options:
`

// serveRegistry is "davitd registry serve": a registry of one's own, in a process apart from any engine.
func serveRegistry(ctx context.Context, args []string, output io.Writer, log *slog.Logger) error {
	flags := flag.NewFlagSet("davit registry serve", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.Usage = func() {
		fmt.Fprint(output, registryUsage)
		flags.PrintDefaults()
	}
	var c registry.Config
	flags.StringVar(&c.Addr, "addr", "127.0.0.1:5000", "host:port to listen on")
	flags.StringVar(&c.Root, "root", defaultRoot, "directory of the content, or s3://BUCKET/PREFIX?region=REGION&endpoint=URL for any number of registries at once")
	flags.StringVar(&c.TLSCert, "tls-cert", "", "certificate file (PEM); without one the registry speaks plain HTTP")
	flags.StringVar(&c.TLSKey, "tls-key", "", "key file (PEM)")
	acmeFlags(flags, &c)
	flags.StringVar(&c.Htpasswd, "htpasswd", "", "file of users with bcrypt hashes; without one everybody may do everything")
	flags.BoolVar(&c.AnonymousPull, "anonymous-pull", false, "with --htpasswd: pulling needs no user")
	flags.DurationVar(&c.CollectEvery, "collect-every", time.Hour, "how often what nothing refers to is removed; 0 for never")
	flags.DurationVar(&c.CollectGrace, "collect-grace", 24*time.Hour, "how long a blob is kept that no manifest refers to yet")
	scrubFlags(flags, &c)
	quotaFlags(flags, &c)
	flags.DurationVar(&c.HistoryKeep, "history-keep", 30*24*time.Hour, "how long what a tag named, and what was deleted, can be brought back")
	flags.Func("immutable", "tags that stay as they are once pushed, as TAG or REPOSITORY:TAG with * for any characters; may be repeated", func(pattern string) error {
		c.Immutable = append(c.Immutable, pattern)
		return nil
	})
	flags.StringVar(&c.Rules, "config", "", "JSON file of users, robots, rules, quotas and retention for repositories, and upstreams, read again when it changes")
	flags.BoolVar(&c.RedirectBlobs, "redirect-blobs", false, "with a bucket: send clients there for blobs, by signed addresses that they must be able to reach")
	flags.BoolVar(&c.NoDeltas, "no-deltas", false, "send layers whole, also to engines that could do with what is new in them")
	flags.BoolVar(&c.NoPages, "no-pages", false, "serve no web pages, only the API")
	cacheFlags(flags, &c)
	flags.StringVar(&c.AuditLog, "audit-log", "", "file to append a line of JSON to for every pull, push, tag, delete, rollback, login and denied request; - for standard output")
	eventFlags(flags, &c)
	flags.IntVar(&c.Connections, "max-connections", 0, "clients at once, others wait; 0 for a quarter of the descriptors that the process may open, at most 65536")
	flags.StringVar(&c.AccessLog, "access-log", "", "file to append a line of JSON to for every request; - for standard output")
	if len(args) > 0 && slices.Contains([]string{"tags", "rollback", "quota", "retention"}, args[0]) {
		return useRegistry(ctx, args, os.Stdout, output, log)
	}
	if len(args) > 0 && args[0] == "login" {
		return signIn(ctx, args, os.Stdout, output, log)
	}
	if len(args) > 0 && args[0] == "forget" {
		return forget(ctx, args, os.Stdout, output)
	}
	if len(args) > 0 && args[0] == "scrub" {
		return maintainRegistry(ctx, args, os.Stdout, output, log)
	}
	if len(args) == 0 || args[0] != "serve" {
		flags.Usage()
		if len(args) == 0 || args[0] == "--help" || args[0] == "-h" || args[0] == "help" {
			return flag.ErrHelp
		}
		return errdefs.Invalid("unknown registry command %q: there are \"serve\", \"login\", \"forget\", \"tags\", \"rollback\", \"quota\", \"retention\" and \"scrub\"", args[0])
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errdefs.Invalid("registry serve takes no arguments: %q", flags.Arg(0))
	}
	return registry.Serve(ctx, c, log)
}
