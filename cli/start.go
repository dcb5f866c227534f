package cli

import (
	"context"
	"errors"
	"net/url"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

func (a *app) startCommand() *cobra.Command {
	var attach, interactive bool
	var detachKeys string
	cmd := &cobra.Command{
		Use:   "start [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Start one or more stopped containers",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := a.client()
			if err != nil {
				return err
			}
			if attach || interactive {
				if len(args) > 1 {
					return errors.New("you cannot start and attach multiple containers at once")
				}
				return a.startAttached(cmd.Context(), args[0], interactive, detachKeys)
			}
			return a.each(args, func(name string) error {
				return engine.Post(cmd.Context(), "/containers/"+url.PathEscape(name)+"/start", nil, nil, nil)
			})
		},
	}
	cmd.Flags().BoolVarP(&attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "Attach container's STDIN")
	cmd.Flags().StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

func (a *app) startAttached(ctx context.Context, name string, interactive bool, detachKeys string) error {
	keys, err := parseDetachKeys(detachKeys)
	if err != nil {
		return err
	}
	var inspected container.InspectResponse
	if err := a.engine.Get(ctx, "/containers/"+url.PathEscape(name)+"/json", nil, &inspected); err != nil {
		return err
	}
	c := inspected.Config
	c.AttachStdin, c.AttachStdout, c.AttachStderr = interactive && c.OpenStdin, true, true
	return a.startFollowed(ctx, inspected.ID, inspected.HostConfig.AutoRemove, true, c, keys)
}

// finish runs a session to its end and returns the container's exit code.
func (a *app) finish(ctx context.Context, s *session, id string, exited <-chan ending) error {
	if s.tty {
		defer a.followSize(ctx, "/containers/"+id)()
	}
	if err := s.run(); err != nil {
		if errors.Is(err, errDetached) {
			return nil
		}
		return err
	}
	return (<-exited).status()
}

func (a *app) attachCommand() *cobra.Command {
	var noStdin, sigProxy bool
	var detachKeys string
	cmd := &cobra.Command{
		Use:   "attach [OPTIONS] CONTAINER",
		Short: "Attach local standard input, output, and error streams to a running container",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.attachTo(cmd.Context(), args[0], noStdin, sigProxy, detachKeys)
		},
	}
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	cmd.Flags().BoolVar(&sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	cmd.Flags().StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

func (a *app) attachTo(ctx context.Context, name string, noStdin, sigProxy bool, detachKeys string) error {
	keys, err := parseDetachKeys(detachKeys)
	if err != nil {
		return err
	}
	engine, err := a.client()
	if err != nil {
		return err
	}
	var inspected container.InspectResponse
	if err := engine.Get(ctx, "/containers/"+url.PathEscape(name)+"/json", nil, &inspected); err != nil {
		return err
	}
	switch state := inspected.State; {
	case !state.Running:
		return errors.New("cannot attach to a stopped container, start it first")
	case state.Paused:
		return errors.New("cannot attach to a paused container, unpause it first")
	case state.Restarting:
		return errors.New("cannot attach to a restarting container, wait until it is running")
	}
	c := inspected.Config
	c.AttachStdin, c.AttachStdout, c.AttachStderr = !noStdin && c.OpenStdin, true, true
	if err := needTerminal(c.AttachStdin, c.Tty); err != nil {
		return err
	}
	exited := a.waitFor(ctx, inspected.ID, container.WaitConditionNotRunning)
	s, err := a.attach1(ctx, inspected.ID, c, keys)
	if err != nil {
		return err
	}
	defer s.stream.Close()
	defer a.forward(ctx, inspected.ID, catchSignals(sigProxy && !c.Tty))()
	return a.finish(ctx, s, inspected.ID, exited)
}

// simple is a verb that posts to each container it is given.
func (a *app) simple(use, short, action string, query func() url.Values) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := a.client()
			if err != nil {
				return err
			}
			return a.each(args, func(name string) error {
				return engine.Post(cmd.Context(), "/containers/"+url.PathEscape(name)+"/"+action, query(), nil, nil)
			})
		},
	}
}

func noQuery() url.Values { return nil }

// stopping is stop or restart: both take a signal and a time.
func (a *app) stopping(use, short, action string) *cobra.Command {
	var signal string
	var seconds int
	cmd := a.simple(use, short, action, nil)
	flags := cmd.Flags()
	flags.StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	flags.IntVarP(&seconds, "timeout", "t", 0, "Seconds to wait before killing the container")
	flags.IntVar(&seconds, "time", 0, "Seconds to wait before killing the container")
	_ = flags.MarkHidden("time")
	query := func() url.Values {
		q := url.Values{}
		if signal != "" {
			q.Set("signal", signal)
		}
		if flags.Changed("timeout") || flags.Changed("time") {
			q.Set("t", strconv.Itoa(seconds))
		}
		return q
	}
	cmd.RunE = a.simple(use, short, action, query).RunE
	return cmd
}

func (a *app) stopCommand() *cobra.Command {
	return a.stopping("stop [OPTIONS] CONTAINER [CONTAINER...]", "Stop one or more running containers", "stop")
}

func (a *app) restartCommand() *cobra.Command {
	return a.stopping("restart [OPTIONS] CONTAINER [CONTAINER...]", "Restart one or more containers", "restart")
}

func (a *app) killCommand() *cobra.Command {
	var signal string
	cmd := a.simple("kill [OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers", "kill", func() url.Values {
		if signal == "" {
			return nil
		}
		return url.Values{"signal": {signal}}
	})
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	return cmd
}

func (a *app) pauseCommand() *cobra.Command {
	return a.simple("pause CONTAINER [CONTAINER...]", "Pause all processes within one or more containers", "pause", noQuery)
}

func (a *app) unpauseCommand() *cobra.Command {
	return a.simple("unpause CONTAINER [CONTAINER...]", "Unpause all processes within one or more containers", "unpause", noQuery)
}
