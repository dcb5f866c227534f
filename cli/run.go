package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"davit/api/client"
)

func (a *app) runCommand() *cobra.Command {
	f := &createFlags{}
	var detach, sigProxy bool
	var detachKeys string
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create and run a new container from an image",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := f.request(cmd.Flags(), args)
			if err != nil {
				return err
			}
			if detach {
				return a.runDetached(cmd.Context(), f, request)
			}
			return a.runAttached(cmd.Context(), f, request, sigProxy, detachKeys)
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "Run container in background and print container ID")
	cmd.Flags().BoolVar(&sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	cmd.Flags().StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

func (a *app) runDetached(ctx context.Context, f *createFlags, request container.CreateRequest) error {
	if len(f.attach) > 0 {
		return errors.New("conflicting options: cannot specify both --attach and --detach")
	}
	c := request.Config
	c.AttachStdin, c.AttachStdout, c.AttachStderr, c.StdinOnce = false, false, false, false
	file, err := openCIDFile(f.cidFile)
	if err != nil {
		return err
	}
	var created container.CreateResponse
	err = a.pulling(ctx, f, request.Image, func(query url.Values) error {
		return a.engine.Post(ctx, "/davit/run", query, client.Sparse{Value: request}, &created)
	})
	if err != nil {
		return notRun(err, file)
	}
	a.warn(created.Warnings)
	fmt.Fprintln(a.out, created.ID)
	return file.write(created.ID)
}

// notRun is what remains of a run that failed: a container that could not be started has left its ID.
func notRun(err error, file *cidFile) error {
	var refused *client.Error
	if errors.As(err, &refused) && refused.Header["Container-Id"] != "" {
		return errors.Join(startError(err), file.write(refused.Header["Container-Id"]))
	}
	return errors.Join(err, file.remove())
}

// runAttached runs a container and follows it to its end. A terminal takes several exchanges with the
// engine, since its stream has no place for the exit code.
func (a *app) runAttached(ctx context.Context, f *createFlags, request container.CreateRequest, sigProxy bool, detachKeys string) error {
	c := request.Config
	if err := needTerminal(c.AttachStdin, c.Tty); err != nil {
		return err
	}
	keys, err := parseDetachKeys(detachKeys)
	if err != nil {
		return err
	}
	if !c.Tty {
		return a.runPiped(ctx, f, request, sigProxy)
	}
	rows, cols := terminalSize()
	request.HostConfig.ConsoleSize = [2]uint{rows, cols}
	id, err := a.create(ctx, f, request)
	if err != nil {
		return err
	}
	err = a.startFollowed(ctx, id, request.HostConfig.AutoRemove, sigProxy, c, keys)
	if n := (*notStarted)(nil); errors.As(err, &n) {
		return startError(n.error)
	}
	return err
}

// runPiped runs a container without a terminal in one exchange: no output and no exit is missed.
func (a *app) runPiped(ctx context.Context, f *createFlags, request container.CreateRequest, sigProxy bool) error {
	file, err := openCIDFile(f.cidFile)
	if err != nil {
		return err
	}
	signals := catchSignals(sigProxy)
	var stream *client.Stream
	err = a.pulling(ctx, f, request.Image, func(query url.Values) (err error) {
		selectStreams(query, request.Config)
		stream, err = a.engine.Hijack(ctx, client.Request{Method: "POST", Path: "/davit/run", Query: query, JSON: client.Sparse{Value: request}})
		return err
	})
	if err != nil {
		return notRun(err, file)
	}
	defer stream.Close()
	id := stream.Header["Container-Id"]
	if err := file.write(id); err != nil {
		return err
	}
	if text := stream.Header["Container-Warnings"]; text != "" {
		var warnings []string
		if err := json.Unmarshal([]byte(text), &warnings); err != nil {
			return fmt.Errorf("decode the engine's warnings: %w", err)
		}
		a.warn(warnings)
	}
	defer a.forward(ctx, id, signals)()
	s := &session{stream: stream, out: a.out, err: a.err}
	if request.Config.AttachStdin {
		s.in = a.in
	}
	if err := s.run(); err != nil {
		return err
	}
	return s.ending.status()
}

// selectStreams asks for the streams that are to be attached.
func selectStreams(query url.Values, c *container.Config) {
	for name, on := range map[string]bool{"stdin": c.AttachStdin, "stdout": c.AttachStdout, "stderr": c.AttachStderr} {
		if on {
			query.Set(name, "1")
		}
	}
}

// notStarted says that a container was not started. The exit status of that is run's to choose.
type notStarted struct{ error }

func (n *notStarted) Unwrap() error { return n.error }

// startFollowed attaches to a container and waits for it before it starts it, and follows it to its end.
func (a *app) startFollowed(ctx context.Context, id string, autoRemove, sigProxy bool, c *container.Config, keys []byte) error {
	s, err := a.attach1(ctx, id, c, keys)
	if err != nil {
		return err
	}
	defer s.stream.Close()
	condition := container.WaitConditionNextExit
	if autoRemove {
		condition = container.WaitConditionRemoved
	}
	exited := a.waitFor(ctx, id, condition)
	defer a.forward(ctx, id, catchSignals(sigProxy && !c.Tty))()
	if err := a.engine.Post(ctx, "/containers/"+id+"/start", nil, nil, nil); err != nil {
		return &notStarted{err}
	}
	return a.finish(ctx, s, id, exited)
}

// attach1 opens the streams that the configuration asks for.
func (a *app) attach1(ctx context.Context, id string, c *container.Config, keys []byte) (*session, error) {
	query := url.Values{"stream": {"1"}}
	selectStreams(query, c)
	stream, err := a.engine.Hijack(ctx, client.Request{Method: "POST", Path: "/containers/" + id + "/attach", Query: query})
	if err != nil {
		return nil, err
	}
	stream.Multiplexed = !c.Tty
	s := &session{stream: stream, out: a.out, err: a.err, tty: c.Tty, detach: keys}
	if c.AttachStdin {
		s.in = a.in
	}
	return s, nil
}

// ending is how a container ended, or why that is not known.
type ending struct {
	code int
	err  error
}

var errLost = errors.New("the engine went away before the container ended; its exit code is not known")

func endingOf(w container.WaitResponse) ending {
	e := ending{code: int(w.StatusCode)}
	if w.Error != nil {
		e.err = errors.New(w.Error.Message)
	}
	return e
}

// status makes the container's exit code this program's.
func (e ending) status() error {
	if e.err != nil {
		return e.err
	}
	if e.code != 0 {
		return &exitError{status: e.code}
	}
	return nil
}

// waitFor begins to wait and returns when the engine has taken note, so that a start that comes next
// cannot be too early.
func (a *app) waitFor(ctx context.Context, id string, condition container.WaitCondition) <-chan ending {
	ended := make(chan ending, 1)
	response, err := a.engine.Do(ctx, client.Request{Method: "POST", Path: "/containers/" + id + "/wait", Query: url.Values{"condition": {string(condition)}}})
	if err != nil {
		ended <- ending{err: err}
		return ended
	}
	go func() {
		defer response.Body.Close()
		result := ending{err: errLost}
		_ = client.Messages(response.Body, func(w container.WaitResponse) error {
			result = endingOf(w)
			return nil
		})
		ended <- result
	}()
	return ended
}

// startError gives the exit status by which shells tell a program that is missing (127) or cannot be
// executed (126) from other failures (125).
func startError(err error) error {
	message := err.Error()
	status := 125
	switch {
	case strings.Contains(message, "executable file not found"), strings.Contains(message, "no such file or directory"):
		status = 127
	case strings.Contains(message, "permission denied"), strings.Contains(message, "is a directory"), strings.Contains(message, "exec format error"), strings.Contains(message, os.ErrPermission.Error()):
		status = 126
	}
	return &exitError{status, "davit: Error response from daemon: " + message + "."}
}
