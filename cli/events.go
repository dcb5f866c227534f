package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/spf13/cobra"

	"davit/api/client"
	"davit/cli/format"
)

func (a *app) eventsCommand() *cobra.Command {
	var filters []string
	var spec, since, until string
	cmd := &cobra.Command{
		Use:   "events [OPTIONS]",
		Short: "Get real time events from the server",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, err := filterQuery(filters)
			if err != nil {
				return err
			}
			for name, value := range map[string]string{"since": since, "until": until} {
				text, err := apiTime(value)
				if err != nil {
					return err
				}
				setIf(query, name, text)
			}
			engine, err := a.client()
			if err != nil {
				return err
			}
			response, err := engine.Do(cmd.Context(), client.Request{Method: "GET", Path: "/events", Query: query})
			if err != nil {
				return err
			}
			defer response.Body.Close()
			return client.Messages(response.Body, func(raw json.RawMessage) error { return printEvent(a.out, spec, raw) })
		},
	}
	flags := cmd.Flags()
	addFilter(cmd, &filters)
	addFormat(cmd, &spec)
	flags.StringVar(&since, "since", "", "Show all events created since timestamp")
	flags.StringVar(&until, "until", "", "Stream events until this timestamp")
	return cmd
}

// printEvent prints "TIME TYPE ACTION ID (name=value, ...)", or what --format asks for.
func printEvent(w io.Writer, spec string, raw json.RawMessage) error {
	var m events.Message
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("read the engine's event: %w", err)
	}
	if spec != "" {
		return format.Inspect(w, spec, []format.Object{{Typed: m, Raw: raw}})
	}
	at := time.Unix(m.Time, 0)
	if m.TimeNano != 0 {
		at = time.Unix(0, m.TimeNano)
	}
	const layout = "2006-01-02T15:04:05.000000000Z07:00" // of fixed width
	text := fmt.Sprintf("%s %s %s %s", at.Format(layout), m.Type, m.Action, m.Actor.ID)
	if len(m.Actor.Attributes) > 0 {
		text += " (" + joinPairs(m.Actor.Attributes, ", ") + ")"
	}
	_, err := fmt.Fprintln(w, text)
	return err
}
