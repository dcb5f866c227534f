// Package cli is the davit command: one file for each verb, flags and texts as docker's. A verb's
// function turns flags into an API request and a stream into output; it decides nothing that the engine
// could decide.
//
// Only the verb that is run is built (verbs.go), since building all costs more than running one.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"davit/api/client"
	"davit/internal/version"
)

// exitError ends the program with a status of its own. An empty message prints nothing.
type exitError struct {
	status  int
	message string
}

func (e *exitError) Error() string { return e.message }

// app is what every verb shares.
type app struct {
	in      io.Reader
	out     io.Writer
	err     io.Writer
	global  globals
	engine  *client.Client
	running *cobra.Command
}

// Main runs a command line and returns the exit status.
func Main(args []string) int {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	root := a.root(args)
	root.SetArgs(args)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go untilBroken(cancel)
	root.SetContext(ctx)
	err := root.Execute()
	return a.report(err)
}

// untilBroken waits for somebody to stop reading what is printed. It is not undone: that would hold up the
// end of every command.
func untilBroken(cancel func()) {
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	<-broken
	cancel()
}

// report prints an error and returns the exit status that goes with it.
func (a *app) report(err error) int {
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.message != "" {
			fmt.Fprintln(a.err, exit.message)
		}
		return exit.status
	}
	message := err.Error()
	var answered *client.Error
	if errors.As(err, &answered) {
		message = "Error response from daemon: " + message
	}
	fmt.Fprintln(a.err, message)
	return a.failure()
}

// usageStatus is the exit status for flags that a verb does not have, or not with that value.
const usageStatus = 125

// failure is the exit status of a command that did not do its work: 125 where the status would otherwise
// be the container's, else 1.
func (a *app) failure() int {
	if a.running != nil && (a.running.Name() == "run" || a.running.Name() == "exec") {
		return 125
	}
	return 1
}

func (a *app) root(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:               "davit [OPTIONS] COMMAND [ARG...]",
		Short:             "build, ship and run containers",
		SilenceErrors:     true,
		SilenceUsage:      true,
		TraverseChildren:  true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("davit: '%s' is not a davit command.\nSee 'davit --help'", args[0])
			}
			if a.global.version {
				fmt.Fprintln(a.out, "davit version "+version.Version)
				return nil
			}
			return cmd.Help()
		},
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	a.global.add(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		a.running = cmd
		return &exitError{usageStatus, fmt.Sprintf("%v\n\nUsage:  %s\n\nRun '%s --help' for more information", err, cmd.UseLine(), cmd.CommandPath())}
	})
	name := firstArgument(args)
	i := slices.IndexFunc(verbs, func(v verb) bool { return v.name == name })
	for j, v := range verbs {
		if i < 0 || i == j {
			a.attach(root, v)
		}
	}
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
	}
	return root
}

// attach adds a verb to a parent command.
func (a *app) attach(parent *cobra.Command, v verb) {
	cmd := v.build(a)
	if parent.Parent() == nil && parent.Name() == "davit" {
		cmd.GroupID = v.group
	}
	cmd.DisableFlagsInUseLine = true
	a.remember(cmd)
	parent.AddCommand(cmd)
}

// remember makes a command, and those below it, known as the running one, for the exit status.
func (a *app) remember(cmd *cobra.Command) {
	if !cmd.DisableFlagParsing {
		cmd.Flags().Bool("help", false, "Print usage") // without cobra's -h, which is --hostname
	}
	run := cmd.RunE
	if run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.running = cmd
			return run(cmd, args)
		}
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return fmt.Errorf("%s: '%s' %w\n\nUsage:  %s\n\n%s", "davit", strings.TrimPrefix(cmd.CommandPath(), "davit "), err, cmd.UseLine(), cmd.Short)
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		a.remember(sub)
	}
}

// firstArgument is the verb: the first word that is neither a global flag nor a global flag's value.
func firstArgument(args []string) string {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case !strings.HasPrefix(arg, "-"):
			return arg
		case slices.Contains(valueFlags, arg):
			i++
		}
	}
	return ""
}

// client returns the connection to the engine, starting one if it is ours to start.
func (a *app) client() (*client.Client, error) {
	if a.engine != nil {
		return a.engine, nil
	}
	dialer, err := a.global.dialer(a.err)
	if err != nil {
		return nil, err
	}
	a.engine = client.New(dialer)
	return a.engine, nil
}

// each does something to every name, prints those that worked and reports those that did not.
func (a *app) each(names []string, do func(name string) error) error {
	var failed []error
	for _, name := range names {
		if err := do(name); err != nil {
			var answered *client.Error
			if errors.As(err, &answered) {
				err = fmt.Errorf("Error response from daemon: %w", err)
			}
			failed = append(failed, err)
			continue
		}
		fmt.Fprintln(a.out, name)
	}
	if len(failed) == 0 {
		return nil
	}
	return &exitError{1, errors.Join(failed...).Error()}
}

// exactArgs, minArgs and the like say what docker says.
func exactArgs(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return fmt.Errorf("requires exactly %d %s", n, plural(n))
	}
}

func minArgs(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return fmt.Errorf("requires at least %d %s", n, plural(n))
	}
}

func rangeArgs(low, high int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) >= low && len(args) <= high {
			return nil
		}
		return fmt.Errorf("requires at least %d and at most %d %s", low, high, plural(high))
	}
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return errors.New("accepts no arguments")
}

func plural(n int) string {
	if n == 1 {
		return "argument"
	}
	return "arguments"
}
