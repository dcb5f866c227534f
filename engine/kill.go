package engine

import (
	"context"
	"fmt"
	"strconv"
	"syscall"

	"github.com/moby/sys/signal"

	"davit/engine/container"
	"davit/oci/errdefs"
)

// Kill sends a signal to a container's program; empty is SIGKILL, whose effect it waits for.
func (c *Containers) Kill(ctx context.Context, name, sigName string) error {
	if err := c.kill(ctx, name, sigName); err != nil {
		return fmt.Errorf("cannot kill container: %s: %w", name, err)
	}
	return nil
}

func (c *Containers) kill(ctx context.Context, name, sigName string) error {
	a, err := c.roster.find(name)
	if err != nil {
		return err
	}
	sig := syscall.SIGKILL
	if sigName != "" {
		if sig, err = signal.ParseSignal(sigName); err != nil {
			return errdefs.As(errdefs.ErrInvalid, err)
		}
	}
	v := a.view()
	if v.State.Status == container.Restarting && sig == syscall.SIGKILL {
		_, err := c.life.markStopped(ctx, a, false)
		return err
	}
	if !v.State.Status.Alive() {
		return errdefs.Conflict("container %s is not running", a.id)
	}
	if ends(v.Record, sig) {
		if _, err := c.life.markStopped(ctx, a, false); err != nil {
			return err
		}
	}
	if err := c.life.signal(ctx, a, sig); err != nil {
		return err
	}
	if sig != syscall.SIGKILL {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	_, err = a.await(wait, func(now *view) bool { return now.exits > v.exits || !now.State.Status.Alive() })
	return err
}

// ends says whether a signal means that the user wants the container down.
func ends(r *container.Record, sig syscall.Signal) bool {
	own, err := stopSignal(r, "")
	return sig == syscall.SIGKILL || sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGQUIT || (err == nil && sig == own)
}

func signalNumber(sig syscall.Signal) string { return strconv.Itoa(int(sig)) }
