package engine

import (
	"context"
	"fmt"

	"davit/oci/errdefs"
	"davit/task"
)

// link is the connection to the monitor, made when it is first needed and again when it was lost. A
// monitor is launched by the first container that starts.
type link struct {
	launch task.LaunchOptions
	turn   chan struct{} // holds one token while somebody connects
	client *task.Client  // read and written by the holder of the token

	// connected is told of each new connection, once, by the holder of the token.
	connected func(*task.Client)
}

func newLink(o task.LaunchOptions) *link {
	return &link{launch: o, turn: make(chan struct{}, 1), connected: func(*task.Client) {}}
}

// get returns a live connection, launching the monitor if there is none.
func (l *link) get(ctx context.Context) (*task.Client, error) {
	return l.connect(ctx, true)
}

// find is get for when no monitor means no tasks: errdefs.ErrUnavailable.
func (l *link) find(ctx context.Context) (*task.Client, error) {
	return l.connect(ctx, false)
}

func (l *link) connect(ctx context.Context, launch bool) (*task.Client, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, errdefs.As(errdefs.ErrCanceled, ctx.Err())
	}
	if l.client != nil {
		select {
		case <-l.client.Done():
			l.client = nil
		default:
			return l.client, nil
		}
	}
	reach := task.Connect
	if !launch {
		reach = func(ctx context.Context, o task.LaunchOptions) (*task.Client, error) { return task.Dial(ctx, o.Socket) }
	}
	client, err := reach(ctx, l.launch)
	if err != nil {
		return nil, fmt.Errorf("reach the monitor: %w", err)
	}
	l.client = client
	l.connected(client)
	return client, nil
}

// close ends the connection; tasks go on.
func (l *link) close() {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	if l.client != nil {
		l.client.Close()
		l.client = nil
	}
}
