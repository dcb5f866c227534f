package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/ociruntime"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

type execFlags struct {
	createFlags
	process, cwd, user, label, apparmor string
	env, caps, groups                   list
	tty, noNewPrivs                     bool
}

func (e *execFlags) add(f *flag.FlagSet) {
	both := func(long, short string, set func(name string)) { set(long); set(short) }
	f.StringVar(&e.consoleSocket, "console-socket", "", "unix socket that gets the terminal")
	f.StringVar(&e.pidFile, "pid-file", "", "file that gets the process id")
	f.IntVar(&e.preserve, "preserve-fds", 0, "pass that many descriptors from 3 on")
	f.StringVar(&e.cwd, "cwd", "", "working directory")
	f.StringVar(&e.label, "process-label", "", "SELinux label")
	f.StringVar(&e.apparmor, "apparmor", "", "AppArmor profile")
	f.BoolVar(&e.noNewPrivs, "no-new-privs", false, "no more privileges through set-id files")
	f.Bool("ignore-paused", false, "accepted for compatibility")
	f.String("cgroup", "", "accepted for compatibility")
	both("process", "p", func(n string) { f.StringVar(&e.process, n, "", "file with the process section of a spec") })
	both("user", "u", func(n string) { f.StringVar(&e.user, n, "", "UID or UID:GID") })
	both("tty", "t", func(n string) { f.BoolVar(&e.tty, n, false, "give it a terminal") })
	both("detach", "d", func(n string) { f.BoolVar(&e.detach, n, false, "leave it running") })
	both("env", "e", func(n string) { f.Var(&e.env, n, "KEY=VALUE, may be repeated") })
	both("cap", "c", func(n string) { f.Var(&e.caps, n, "one more capability, may be repeated") })
	both("additional-gids", "g", func(n string) { f.Var(&e.groups, n, "one more group, may be repeated") })
}

func (a *app) exec(ctx context.Context, args []string) error {
	f, e := a.flags("exec"), execFlags{}
	e.add(f)
	rest, err := parse(f, args, 1, -1)
	if err != nil {
		return err
	}
	c, err := a.load(ctx, rest[0], true)
	if err != nil {
		return err
	}
	spec, err := c.Spec()
	if err != nil {
		return err
	}
	process, err := e.makeProcess(spec.Process, rest[1:])
	if err != nil {
		return err
	}
	if err := checkTerminal(process.Terminal, e.detach, e.consoleSocket); err != nil {
		return err
	}
	extra, err := preserved(e.preserve)
	if err != nil {
		return err
	}
	p, err := c.Exec(ctx, ociruntime.ExecOptions{
		Process: process, ExtraFiles: extra, Stdio: ociruntime.Stdio{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("exec failed: %w", err)
	}
	return e.follow(ctx, p)
}

// follow does what is asked for after the program has started.
func (e *execFlags) follow(ctx context.Context, p *ociruntime.Process) error {
	if e.consoleSocket != "" {
		if err := sendConsole(e.consoleSocket, p.Console); err != nil {
			return err
		}
		p.Console = nil
	}
	if e.pidFile != "" {
		if err := writePid(e.pidFile, p.Pid); err != nil {
			return err
		}
	}
	if e.detach {
		return nil
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	defer signal.Stop(signals)
	restore := func() {}
	if p.Console != nil {
		var err error
		if restore, err = join(p.Console); err != nil {
			return err
		}
	}
	go passSignals(signals, p.PidFD, p.Console)
	status, err := p.Wait(ctx)
	restore()
	if err == nil && status.Code != 0 {
		err = exitCode(status.Code)
	}
	return err
}

// makeProcess is the container's own process with what the flags change, or the one in a file.
func (e *execFlags) makeProcess(own *specs.Process, args []string) (*specs.Process, error) {
	if e.process != "" {
		text, err := os.ReadFile(e.process)
		if err != nil {
			return nil, fmt.Errorf("read process: %w", err)
		}
		p := &specs.Process{}
		if err := json.Unmarshal(text, p); err != nil {
			return nil, fmt.Errorf("decode %s: %w", e.process, err)
		}
		return p, nil
	}
	if len(args) == 0 {
		return nil, errors.New("exec: no program given")
	}
	p := *own
	p.Args, p.Terminal, p.ConsoleSize = args, e.tty, nil
	p.Env = append(own.Env[:len(own.Env):len(own.Env)], e.env...)
	p.NoNewPrivileges = p.NoNewPrivileges || e.noNewPrivs
	for flag, field := range map[*string]*string{&e.cwd: &p.Cwd, &e.label: &p.SelinuxLabel, &e.apparmor: &p.ApparmorProfile} {
		if *flag != "" {
			*field = *flag
		}
	}
	p.Capabilities = withCapabilities(own.Capabilities, e.caps)
	return &p, e.setUser(&p.User)
}

func (e *execFlags) setUser(u *specs.User) error {
	if e.user != "" {
		uid, gid, hasGid := strings.Cut(e.user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return fmt.Errorf("user %q is not numeric", e.user)
		}
		u.UID, u.AdditionalGids = uint32(n), nil
		if hasGid {
			if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return fmt.Errorf("user %q is not numeric", e.user)
			}
			u.GID = uint32(n)
		}
	}
	for _, group := range e.groups {
		n, err := strconv.ParseUint(group, 10, 32)
		if err != nil {
			return fmt.Errorf("group %q is not numeric", group)
		}
		u.AdditionalGids = append(u.AdditionalGids, uint32(n))
	}
	return nil
}

// withCapabilities returns the sets with more in all but the ambient one.
func withCapabilities(own *specs.LinuxCapabilities, more []string) *specs.LinuxCapabilities {
	if own == nil || len(more) == 0 {
		return own
	}
	add := func(set []string) []string { return append(set[:len(set):len(set)], more...) }
	return &specs.LinuxCapabilities{
		Bounding: add(own.Bounding), Effective: add(own.Effective), Permitted: add(own.Permitted),
		Inheritable: own.Inheritable, Ambient: own.Ambient,
	}
}
