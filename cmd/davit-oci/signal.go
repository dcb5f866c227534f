package main

import (
	"context"
	"errors"
	"syscall"

	"github.com/moby/sys/signal"

	"davit/oci/errdefs"
)

func (a *app) kill(ctx context.Context, args []string) error {
	f := a.flags("kill")
	all := f.Bool("all", false, "send it to every process of the container")
	f.BoolVar(all, "a", false, "same as --all")
	rest, err := parse(f, args, 1, 2)
	if err != nil {
		return err
	}
	sig := syscall.SIGTERM
	if len(rest) == 2 {
		if sig, err = signal.ParseSignal(rest[1]); err != nil {
			return err
		}
	}
	c, err := a.load(ctx, rest[0], false)
	if err != nil {
		return err
	}
	return c.Kill(ctx, sig, *all)
}

func (a *app) delete(ctx context.Context, args []string) error {
	f := a.flags("delete")
	force := f.Bool("force", false, "kill the container first, and do not mind when there is none")
	f.BoolVar(force, "f", false, "same as --force")
	rest, err := parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	c, err := a.load(ctx, rest[0], false)
	if *force && errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.Delete(ctx, *force)
}

func (a *app) pause(ctx context.Context, args []string) error {
	rest, err := parse(a.flags("pause"), args, 1, 1)
	if err != nil {
		return err
	}
	c, err := a.load(ctx, rest[0], false)
	if err != nil {
		return err
	}
	return c.Pause(ctx)
}

func (a *app) resume(ctx context.Context, args []string) error {
	rest, err := parse(a.flags("resume"), args, 1, 1)
	if err != nil {
		return err
	}
	c, err := a.load(ctx, rest[0], false)
	if err != nil {
		return err
	}
	return c.Resume(ctx)
}
