package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"davit/api/client"
	"davit/cli/opts"
)

func (a *app) execCommand() *cobra.Command {
	var request container.ExecCreateRequest
	var env, envFile []string
	var detach, interactive bool
	cmd := &cobra.Command{
		Use:   "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short: "Execute a command in a running container",
		Args:  minArgs(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if request.Env, err = opts.Env(envFile, env); err != nil {
				return err
			}
			request.Cmd = args[1:]
			request.AttachStdin, request.AttachStdout, request.AttachStderr = interactive && !detach, !detach, !detach
			if err := needTerminal(request.AttachStdin, request.Tty); err != nil {
				return err
			}
			return a.exec(cmd.Context(), args[0], request, detach)
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.BoolVarP(&detach, "detach", "d", false, "Detached mode: run command in the background")
	flags.StringVar(&request.DetachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	flags.VarP(opts.ListOf(&env), "env", "e", "Set environment variables")
	flags.Var(opts.ListOf(&envFile), "env-file", "Read in a file of environment variables")
	flags.BoolVarP(&interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	flags.BoolVar(&request.Privileged, "privileged", false, "Give extended privileges to the command")
	flags.BoolVarP(&request.Tty, "tty", "t", false, "Allocate a pseudo-TTY")
	flags.StringVarP(&request.User, "user", "u", "", "Username or UID (format: \"<name|uid>[:<group|gid>]\")")
	flags.StringVarP(&request.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	return cmd
}

func (a *app) exec(ctx context.Context, name string, request container.ExecCreateRequest, detach bool) error {
	keys, err := parseDetachKeys(request.DetachKeys)
	if err != nil {
		return err
	}
	engine, err := a.client()
	if err != nil {
		return err
	}
	if request.Tty {
		if rows, cols := terminalSize(); rows != 0 {
			request.ConsoleSize = &[2]uint{rows, cols}
		}
	}
	var created container.ExecCreateResponse
	if err := engine.Post(ctx, "/containers/"+url.PathEscape(name)+"/exec", nil, request, &created); err != nil {
		return execError(err, 1)
	}
	path := "/exec/" + created.ID
	start := container.ExecStartRequest{Detach: detach, Tty: request.Tty, ConsoleSize: request.ConsoleSize}
	if detach {
		return execError(engine.Post(ctx, path+"/start", nil, start, nil), 126)
	}
	stream, err := engine.Hijack(ctx, client.Request{Method: "POST", Path: path + "/start", JSON: start})
	if err != nil {
		return execError(err, 126)
	}
	defer stream.Close()
	stream.Multiplexed = !request.Tty
	s := &session{stream: stream, out: a.out, err: a.err, tty: request.Tty, detach: keys}
	if request.AttachStdin {
		s.in = a.in
	}
	if request.Tty {
		defer a.followSize(ctx, path)()
	}
	if err := s.run(); err != nil {
		if errors.Is(err, errDetached) {
			return nil
		}
		return err
	}
	var inspected container.ExecInspectResponse
	if err := engine.Get(ctx, path+"/json", nil, &inspected); err != nil {
		return err
	}
	if inspected.ExitCode != nil && *inspected.ExitCode != 0 {
		return &exitError{status: *inspected.ExitCode}
	}
	return nil
}

// execError gives a failure to execute the status of startError, and others the given one.
func execError(err error, status int) error {
	if err == nil {
		return nil
	}
	var exit *exitError
	if errors.As(startError(err), &exit) && exit.status != 125 {
		status = exit.status
	}
	return &exitError{status, fmt.Sprintf("Error response from daemon: %v", err)}
}
