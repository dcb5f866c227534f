package engine

import (
	"context"
	"iter"

	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/store/logs"
)

// Log is a container's output.
type Log struct {
	Tty     bool
	Entries iter.Seq2[logs.Entry, error]
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
	return Log{Tty: r.Config.Tty, Entries: logs.Read(ctx, r.LogPath, o)}, nil
}

// ClearLogs empties a container's log, which docker has no word for.
func (v *Views) ClearLogs(name string) error {
	a, err := v.roster.find(name)
	if err != nil {
		return err
	}
	return logs.Clear(a.record().LogPath)
}
