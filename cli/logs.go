package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"davit/api/client"
)

func (a *app) logsCommand() *cobra.Command {
	query := url.Values{"stdout": {"1"}, "stderr": {"1"}}
	var follow, timestamps, details bool
	var tail, since, until string
	cmd := &cobra.Command{
		Use:   "logs [OPTIONS] CONTAINER",
		Short: "Fetch the logs of a container",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for name, on := range map[string]bool{"follow": follow, "timestamps": timestamps, "details": details} {
				if on {
					query.Set(name, "1")
				}
			}
			query.Set("tail", tail)
			for name, value := range map[string]string{"since": since, "until": until} {
				text, err := apiTime(value)
				if err != nil {
					return err
				}
				if text != "" {
					query.Set(name, text)
				}
			}
			return a.logs(cmd.Context(), args[0], query)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "Follow log output")
	flags.BoolVarP(&timestamps, "timestamps", "t", false, "Show timestamps")
	flags.BoolVar(&details, "details", false, "Show extra details provided to logs")
	flags.StringVarP(&tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	flags.StringVar(&since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	flags.StringVar(&until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	cmd.AddCommand(a.logsClearCommand())
	return cmd
}

func (a *app) logs(ctx context.Context, name string, query url.Values) error {
	engine, err := a.client()
	if err != nil {
		return err
	}
	path := "/containers/" + url.PathEscape(name)
	var inspected container.InspectResponse
	if err := engine.Get(ctx, path+"/json", nil, &inspected); err != nil {
		return err
	}
	response, err := engine.Do(ctx, client.Request{Method: "GET", Path: path + "/logs", Query: query})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if lost := response.Header["Davit-Lost"]; lost != "" {
		fmt.Fprintln(a.err, "davit: the log is not complete:", lost)
	}
	if inspected.Config != nil && inspected.Config.Tty {
		_, err = copyTo(a.out, response.Body)
		return err
	}
	return demultiplex(response.Body, a.out, a.err, a.err)
}

func (a *app) logsClearCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clear CONTAINER [CONTAINER...]",
		Short: "Remove what containers have logged so far; followers go on",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := a.client()
			if err != nil {
				return err
			}
			return a.each(args, func(name string) error {
				err := engine.Post(cmd.Context(), "/davit/containers/"+url.PathEscape(name)+"/logs/clear", nil, nil, nil)
				var answered *client.Error
				if errors.As(err, &answered) && answered.Status == 404 && answered.Message == "page not found" {
					return errors.New("this engine cannot clear logs: it is not davit's")
				}
				return err
			})
		},
	}
}
