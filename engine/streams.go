package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/api/types/events"

	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/task"
)

// Streams connects clients with containers' standard streams.
type Streams struct{ *shared }

// AttachOptions say what to connect.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
}

// Attachment is a client's place at a container: Open waits until there is a stream.
type Attachment struct {
	Tty   bool
	Stdin bool // what the client sends reaches the program

	streams *Streams
	actor   *actor
	request task.AttachRequest
	waiting *waitingClient // nil when the task is there already
}

// Attach registers a client. A container that does not run is attached once it starts, from its first
// byte on.
func (s *Streams) Attach(name string, o AttachOptions) (*Attachment, error) {
	a, err := s.roster.find(name)
	if err != nil {
		return nil, err
	}
	r := a.record()
	switch r.State.Status {
	case container.Paused:
		return nil, errdefs.Conflict("container %s is paused, unpause the container before attach", a.id)
	case container.Restarting:
		return nil, errdefs.Conflict("container %s is restarting, wait until the container is running", a.id)
	case container.Removing, container.Removed, container.Dead:
		return nil, errdefs.Conflict("container %s is marked for removal", a.id)
	}
	at := &Attachment{
		Tty: r.Config.Tty, Stdin: o.Stdin && r.Config.OpenStdin, streams: s, actor: a,
		request: task.AttachRequest{Task: a.id, Stdin: o.Stdin && r.Config.OpenStdin, Stdout: o.Stdout, Stderr: o.Stderr},
	}
	if !r.State.Status.Alive() {
		at.waiting = a.enqueue(at.request)
	}
	s.tell(r, events.ActionAttach, nil)
	return at, nil
}

// Open returns the stream, in the form of task.AttachRequest; nil when the container was removed before
// it ran. It is called once.
func (at *Attachment) Open(ctx context.Context) (stream, error) {
	if at.waiting == nil {
		client, err := at.streams.link.get(ctx)
		if err != nil {
			return nil, err
		}
		return client.Attach(ctx, at.request)
	}
	select {
	case conn := <-at.waiting.conn:
		return conn, nil
	case <-ctx.Done():
		at.actor.withdraw(at.waiting)
		return nil, errdefs.As(errdefs.ErrCanceled, ctx.Err())
	}
}

// Detached tells of a client that left with its detach keys.
func (at *Attachment) Detached() { at.streams.tell(at.actor.record(), events.ActionDetach, nil) }

// Resize sets the size of a container's terminal.
func (s *Streams) Resize(ctx context.Context, name string, rows, cols uint16) error {
	a, err := s.roster.find(name)
	if err != nil {
		return err
	}
	if !a.record().State.Status.Alive() {
		return errdefs.Conflict("container %s is not running", a.id)
	}
	client, err := s.link.get(ctx)
	if err != nil {
		return err
	}
	if err := client.Resize(ctx, a.id, "", rows, cols); err != nil {
		return err
	}
	s.tell(a.record(), events.ActionResize, map[string]string{"height": fmt.Sprint(rows), "width": fmt.Sprint(cols)})
	return nil
}

// Demultiplex parts a stream of frames (see task.AttachRequest) into its two outputs.
func Demultiplex(r io.Reader, stdout, stderr io.Writer) error {
	var header [8]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		w := stdout
		if header[0] == 2 {
			w = stderr
		}
		if _, err := io.CopyN(w, r, int64(binary.BigEndian.Uint32(header[4:]))); err != nil {
			return err
		}
	}
}
