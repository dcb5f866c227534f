// Command davitd is the engine: it keeps images, networks, volumes and the records of containers, and
// serves the Docker Engine API. It takes dockerd's flags for what it has.
//
// This is the one place where implementations are chosen and put together; see compose.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"davit/internal/version"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) > 0 && (args[0] == "registry" || args[0] == "connect") {
		return runOther(args[0], args[1:])
	}
	debug.SetGCPercent(200) // a burst collects rarely; see resting
	c, err := parse(args, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "davitd: %v\n", err)
		return 125
	case c.showVersion:
		fmt.Printf("davitd version %s\n", version.Version)
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level(c)}))
	if err := serve(ctx, c, log); err != nil {
		fmt.Fprintf(os.Stderr, "davitd: %v\n", err)
		return 1
	}
	return 0
}

// runOther is what davitd can do besides being an engine.
func runOther(verb string, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	if verb == "registry" {
		err = serveRegistry(ctx, args, os.Stderr, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	} else {
		err = connect(ctx, args, os.Stderr)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "davit %s: %v\n", verb, err)
		return 1
	}
	return 0
}

func level(c config) slog.Level {
	switch strings.ToLower(c.logLevel) {
	case "debug", "trace":
		return slog.LevelDebug
	case "warn", "warning":
		return slog.LevelWarn
	case "error", "fatal", "panic":
		return slog.LevelError
	}
	if c.debug {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
