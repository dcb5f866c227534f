package engine

import (
	"context"
	"fmt"
	"iter"

	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/store/logs"
)

// Log is a container's output.
type Log struct {
	Tty     bool
	Entries iter.Seq2[logs.Entry, error]
	Lost    string // what of a running container's output is not there, and why; empty: nothing
}

// Logs returns a container's output. Following ends when its program does.
func (v *Views) Logs(ctx context.Context, name string, o logs.Options) (Log, error) {
	a, err := v.roster.find(name)
	if err != nil {
		return Log{}, err
	}
	if !o.Stdout && !o.Stderr {
		return Log{}, errdefs.Invalid("Bad parameters: you must choose at least one stream")
	}
	r := a.record()
	if r.LogPath == "" {
		return Log{}, errdefs.New(errdefs.ErrNotImplemented, "configured logging driver does not support reading")
	}
	if o.Follow {
		done := make(chan struct{})
		o.Done = done
		since := a.view().exits
		go func() {
			defer close(done)
			// The end of ctx ends the reading as well.
			_, _ = a.await(ctx, func(now *view) bool {
				return now.exits > since || (!up(now.State.Status) && now.State.Status != container.Restarting && !now.State.StartedAt.IsZero())
			})
		}()
	}
	return Log{Tty: r.Config.Tty, Entries: logs.Read(ctx, r.LogPath, o), Lost: v.lostOutput(ctx, r)}, nil
}

// lostOutput says whether the monitor could not write some of a running container's output, as on a full disk.
func (v *Views) lostOutput(ctx context.Context, r *container.Record) string {
	if !up(r.State.Status) {
		return ""
	}
	monitor, err := v.link.find(ctx)
	if err != nil {
		return ""
	}
	s, err := monitor.State(ctx, r.ID, "")
	if err != nil || s.LogErrors == 0 {
		return ""
	}
	return fmt.Sprintf("%d pieces of output could not be written: %s", s.LogErrors, s.LogError)
}

// ClearLogs empties a container's log, which docker has no word for.
func (v *Views) ClearLogs(name string) error {
	a, err := v.roster.find(name)
	if err != nil {
		return err
	}
	return logs.Clear(a.record().LogPath)
}
