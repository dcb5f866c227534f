// Command davit-oci runs containers: as an OCI runtime on the command line, with the verbs and flags that
// containerd, Podman and Docker give to runc, and as the process that is parent of all containers of a
// davit engine (monitor).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/ociruntime"
	"davit/ociruntime/initbin"
)

func main() { os.Exit(run(os.Args[1:])) }

// app is one call of the program: the global flags, and what verbs share.
type app struct {
	root      string
	systemd   bool
	log       *slog.Logger
	stdout    io.Writer
	stderr    io.Writer
	debug     bool
	logPath   string
	logFormat string
}

// verb is one command. run gets the arguments after its name.
type verb struct {
	name, usage, does string
	run               func(a *app, ctx context.Context, args []string) error
}

func verbs() []verb {
	return []verb{
		{"create", "[flags] ID", "make a container; its program waits for start", (*app).create},
		{"start", "ID", "execute the program of a created container", (*app).start},
		{"run", "[flags] ID", "create and start a container, and wait for it unless detached", (*app).run},
		{"exec", "[flags] ID PROGRAM [ARG...]", "execute one more program in a running container", (*app).exec},
		{"kill", "[--all] ID [SIGNAL]", "send a signal to a container's first process", (*app).kill},
		{"delete", "[--force] ID", "remove what a stopped container holds", (*app).delete},
		{"state", "ID", "print the state of a container", (*app).state},
		{"list", "[--quiet] [--format table|json]", "list the containers of this root", (*app).list},
		{"ps", "[--format table|json] ID [PS-ARG...]", "list the processes of a container", (*app).ps},
		{"pause", "ID", "freeze a container", (*app).pause},
		{"resume", "ID", "thaw a container", (*app).resume},
		{"update", "[flags] ID", "change a container's limits", (*app).update},
		{"events", "[--stats] [--interval D] ID", "print statistics and out-of-memory events", (*app).events},
		{"spec", "[--bundle DIR]", "write an example config.json", (*app).spec},
		{"features", "", "print what this runtime can do", (*app).features},
	}
}

// exitCode ends the program with the status of a container's, without a message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func run(args []string) int {
	if len(args) > 0 && args[0] == "monitor" {
		return runMonitor(args[1:], os.Stdout, os.Stderr)
	}
	a := &app{stdout: os.Stdout, stderr: os.Stderr}
	rest, code, done := a.parseGlobal(args)
	if done {
		return code
	}
	closeLog, err := a.openLog()
	if err != nil {
		fmt.Fprintln(a.stderr, "davit-oci:", err)
		return 1
	}
	defer closeLog()
	i := slices.IndexFunc(verbs(), func(v verb) bool { return v.name == rest[0] })
	if i < 0 {
		return a.fail(fmt.Errorf("unknown command %q: see davit-oci --help", rest[0]), 1)
	}
	err = verbs()[i].run(a, context.Background(), rest[1:])
	var status exitCode
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &status):
		return int(status)
	case rest[0] == "exec" || rest[0] == "run": // 1 to 254 may be the program's own
		return a.fail(err, map[string]int{"exec": 255, "run": 1}[rest[0]])
	}
	return a.fail(err, 1)
}

// fail tells an error where runtimes tell it: the log, which callers read, and standard error.
func (a *app) fail(err error, code int) int {
	if a.logPath != "" {
		a.log.Error(err.Error())
	}
	fmt.Fprintln(a.stderr, "davit-oci:", err)
	return code
}

// parseGlobal reads the flags before the verb. done says that nothing is left to do.
func (a *app) parseGlobal(args []string) (rest []string, code int, done bool) {
	flags := flag.NewFlagSet("davit-oci", flag.ContinueOnError)
	flags.SetOutput(a.stderr)
	flags.Usage = func() { printUsage(a.stderr, flags) }
	flags.StringVar(&a.root, "root", "/run/davit-oci", "directory of the containers' state")
	flags.StringVar(&a.logPath, "log", "", "file to write messages to")
	flags.StringVar(&a.logFormat, "log-format", "text", "text or json")
	flags.BoolVar(&a.debug, "debug", false, "also log what is done")
	flags.BoolVar(&a.systemd, "systemd-cgroup", false, "let systemd make the control groups")
	flags.String("rootless", "auto", "accepted for compatibility")
	flags.String("criu", "", "accepted for compatibility")
	version := flags.Bool("version", false, "print the version")
	flags.BoolVar(version, "v", false, "print the version")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil, 0, true
	case err != nil:
		return nil, 2, true
	case *version:
		fmt.Fprintf(a.stdout, "davit-oci version %s\nspec: %s\n", programVersion(), specs.Version)
		return nil, 0, true
	case flags.NArg() == 0 || flags.Arg(0) == "help":
		printUsage(a.stdout, flags)
		return nil, 0, true
	}
	return flags.Args(), 0, false
}

func printUsage(w io.Writer, flags *flag.FlagSet) {
	fmt.Fprintln(w, "usage: davit-oci [flags] COMMAND ...")
	fmt.Fprintln(w)
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %-10s %-40s %s\n", v.name, v.usage, v.does)
	}
	fmt.Fprintln(w)
	flags.SetOutput(w)
	flags.PrintDefaults()
}

// openLog makes the logger. Its JSON form is what containerd and Podman parse: level, msg, time.
func (a *app) openLog() (func(), error) {
	level := slog.LevelWarn
	if a.debug {
		level = slog.LevelDebug
	}
	to, closeLog := a.stderr, func() {}
	if a.logPath != "" {
		f, err := os.OpenFile(a.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_SYNC, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open log: %w", err)
		}
		to, closeLog = f, func() { f.Close() }
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: logAttribute}
	switch a.logFormat {
	case "text":
		a.log = slog.New(slog.NewTextHandler(to, options))
	case "json":
		a.log = slog.New(slog.NewJSONHandler(to, options))
	default:
		return nil, fmt.Errorf("unknown log format %q", a.logFormat)
	}
	return closeLog, nil
}

// logAttribute writes levels and times as the readers of runtime logs expect them.
func logAttribute(groups []string, at slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return at
	}
	switch at.Key {
	case slog.LevelKey:
		name := map[slog.Level]string{slog.LevelDebug: "debug", slog.LevelInfo: "info", slog.LevelWarn: "warning", slog.LevelError: "error"}
		if level, ok := at.Value.Any().(slog.Level); ok {
			return slog.String(slog.LevelKey, name[level])
		}
	case slog.TimeKey:
		return slog.String(slog.TimeKey, at.Value.Time().UTC().Format(time.RFC3339Nano))
	}
	return at
}

// runtime opens the runtime over the root. Only verbs that start processes need init.
func (a *app) runtime(starts bool) (*ociruntime.Runtime, error) {
	o := ociruntime.Options{StateRoot: a.root, SystemdCgroup: a.systemd, Logger: a.log}
	if starts {
		init, err := initbin.Open()
		if err != nil {
			return nil, err
		}
		o.Init = init
	}
	return ociruntime.New(o)
}

// load returns the container that a verb is about.
func (a *app) load(ctx context.Context, id string, starts bool) (*ociruntime.Container, error) {
	r, err := a.runtime(starts)
	if err != nil {
		return nil, err
	}
	return r.Load(ctx, id)
}

// flags starts the flags of a verb.
func (a *app) flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet("davit-oci "+name, flag.ContinueOnError)
	f.SetOutput(a.stderr)
	return f
}

// parse reads the flags of a verb, which takes between least and most arguments; -1 is any number.
func parse(f *flag.FlagSet, args []string, least, most int) ([]string, error) {
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if n := f.NArg(); n < least || most >= 0 && n > most {
		return nil, fmt.Errorf("%s: %d arguments are not what it takes", f.Name(), n)
	}
	return f.Args(), nil
}

func (a *app) printJSON(value any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	return e.Encode(value)
}
