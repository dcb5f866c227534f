package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"davit/monitor"
	"davit/ociruntime"
	"davit/ociruntime/initbin"
)

// monitorProcessors bounds the threads that run the monitor's code: it copies bytes and waits.
const monitorProcessors = 4

// runMonitor is the hidden verb `monitor`: the process that is parent of every container. The engine
// starts it by task.Launch; nobody types it.
func runMonitor(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("davit-oci monitor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var o monitor.Options
	flags.StringVar(&o.Socket, "socket", "", "unix socket to listen on")
	flags.StringVar(&o.Dir, "dir", "", "directory of its state")
	flags.DurationVar(&o.Idle, "idle", time.Minute, "how long to stay with neither tasks nor clients")
	flags.IntVar(&o.ListenFD, "listen-fd", 0, "descriptor of a listening socket")
	flags.IntVar(&o.HandoverFD, "handover-fd", 0, "descriptor of what the program before left")
	root := flags.String("root", "", "directory of the containers' state; DIR/oci when empty")
	systemd := flags.Bool("systemd-cgroup", false, "let systemd make the control groups")
	level := flags.String("log-level", "warn", "least severity of diagnostics")
	version := flags.Bool("handover-version", false, "print the version of the state it takes over, and exit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if *version {
		fmt.Fprintln(stdout, monitor.HandoverVersion)
		return 0
	}
	if !filepath.IsAbs(o.Socket) || !filepath.IsAbs(o.Dir) || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "davit-oci monitor: --socket and --dir must be absolute paths, and nothing may follow")
		return 2
	}
	if *root == "" {
		*root = filepath.Join(o.Dir, "oci")
	}
	o.Args = []string{"--root", *root, "--log-level", *level}
	if *systemd {
		o.Args = append(o.Args, "--systemd-cgroup")
	}
	if err := serveMonitor(o, *root, *systemd, *level, stderr); err != nil {
		fmt.Fprintln(stderr, "davit-oci monitor:", err)
		return 1
	}
	return 0
}

// serveMonitor tunes the program for a long, quiet life and runs the monitor.
func serveMonitor(o monitor.Options, root string, systemd bool, level string, stderr io.Writer) error {
	var severity slog.Level
	if err := severity.UnmarshalText([]byte(level)); err != nil {
		return err
	}
	o.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: severity}))
	init, err := initbin.Open()
	if err != nil {
		return err
	}
	o.Runtime, err = ociruntime.New(ociruntime.Options{StateRoot: root, Init: init, SystemdCgroup: systemd, Logger: o.Logger})
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(min(runtime.NumCPU(), monitorProcessors))
	debug.SetGCPercent(200) // a burst collects rarely; what it leaves goes back to the kernel when it is over
	return monitor.Run(context.Background(), o)
}
