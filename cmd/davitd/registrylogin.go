package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"davit/internal/version"
	"davit/oci/errdefs"
	"davit/registry/auth"
	"davit/registry/client"
	registry "davit/registry/server"
)

// signIn is "davit registry login": people sign in in a browser, here or on another device, and this machine
// keeps a token of theirs, as davit login would keep a password.
func signIn(ctx context.Context, args []string, out, errs io.Writer, log *slog.Logger) error {
	flags := flag.NewFlagSet("davit registry login", flag.ContinueOnError)
	flags.SetOutput(errs)
	days := flags.Int("days", 90, "how long this machine stays logged in")
	names, err := interspersed(flags, args[1:])
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return errdefs.Invalid("registry login takes one registry: davit registry login [--days N] HOST")
	}
	host := auth.Host(names[0])
	config, err := auth.LoadConfig(auth.DefaultConfigPath())
	if err != nil {
		return err
	}
	c, err := client.New(client.Options{UserAgent: "davit/" + version.Version, Log: log})
	if err != nil {
		return err
	}
	machine, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name this machine: %w", err)
	}
	token, err := c.SignIn(ctx, host, "davit on "+machine, *days, func(s client.SignIn) {
		fmt.Fprintf(out, "Open  %s\nin a browser and sign in. The code is  %s  (until %s).\n", cmp.Or(s.Complete, s.Address), s.Code, s.Expires.Local().Format(time.TimeOnly))
	})
	if err != nil {
		return err
	}
	where, err := config.Store(ctx, host, auth.Credentials{Username: token.User, Password: token.Token, ServerAddress: host})
	if err != nil {
		return fmt.Errorf("keep the token: %w", err)
	}
	fmt.Fprintf(out, "Logged in to %s as %s until %s. The token is in %s, and can be revoked on the registry's page /account.\n",
		host, token.User, token.Expires.Local().Format(time.DateOnly), where)
	return nil
}

// forget is "davit registry forget", which works on the root itself, while registries serve it or not.
func forget(ctx context.Context, args []string, out, errs io.Writer) error {
	flags := flag.NewFlagSet("davit registry forget", flag.ContinueOnError)
	flags.SetOutput(errs)
	root := flags.String("root", defaultRoot, "directory or bucket of the content, as for serve")
	names, err := interspersed(flags, args[1:])
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return errdefs.Invalid("registry forget takes one person: davit registry forget [--root ROOT] NAME")
	}
	return registry.ForgetPerson(ctx, *root, names[0], out)
}
