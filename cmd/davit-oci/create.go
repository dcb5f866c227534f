package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/term"

	"davit/kernel/sys"
	"davit/ociruntime"
)

// createFlags are what create and run have in common.
type createFlags struct {
	bundle, consoleSocket, pidFile string
	noPivot, detach                bool
	preserve                       int
}

func (c *createFlags) add(f *flag.FlagSet) {
	f.StringVar(&c.bundle, "bundle", "", "directory with config.json; the working directory when empty")
	f.StringVar(&c.bundle, "b", "", "same as --bundle")
	f.StringVar(&c.consoleSocket, "console-socket", "", "unix socket that gets the terminal")
	f.StringVar(&c.pidFile, "pid-file", "", "file that gets the process id")
	f.BoolVar(&c.noPivot, "no-pivot", false, "change the root by chroot, for a host that runs from an initramfs")
	f.Bool("no-new-keyring", false, "accepted for compatibility")
	f.Bool("no-subreaper", false, "accepted for compatibility")
	f.IntVar(&c.preserve, "preserve-fds", 0, "pass that many descriptors from 3 on")
}

func (a *app) create(ctx context.Context, args []string) error {
	f, c := a.flags("create"), createFlags{detach: true}
	c.add(f)
	rest, err := parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	_, err = a.make(ctx, rest[0], c)
	return err
}

// make creates a container that is ready to be started. When that fails nothing stays.
func (a *app) make(ctx context.Context, id string, c createFlags) (*ociruntime.Container, error) {
	spec, bundle, err := loadBundle(c.bundle)
	if err != nil {
		return nil, err
	}
	terminal := spec.Process != nil && spec.Process.Terminal
	if err := checkTerminal(terminal, c.detach, c.consoleSocket); err != nil {
		return nil, err
	}
	extra, err := preserved(c.preserve)
	if err != nil {
		return nil, err
	}
	r, err := a.runtime(true)
	if err != nil {
		return nil, err
	}
	container, err := r.Create(ctx, id, ociruntime.CreateOptions{
		Spec: spec, Bundle: bundle, NoPivot: c.noPivot, ExtraFiles: extra,
		Stdio: ociruntime.Stdio{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr},
	})
	if err != nil {
		return nil, err
	}
	err = container.Ready(ctx)
	if err == nil && c.consoleSocket != "" {
		err = sendConsole(c.consoleSocket, container.Console)
	}
	if err == nil && c.pidFile != "" {
		err = writePid(c.pidFile, container.Pid)
	}
	if err != nil {
		return nil, errors.Join(err, container.Delete(context.Background(), true))
	}
	return container, nil
}

func (a *app) start(ctx context.Context, args []string) error {
	rest, err := parse(a.flags("start"), args, 1, 1)
	if err != nil {
		return err
	}
	c, err := a.load(ctx, rest[0], false)
	if err != nil {
		return err
	}
	return c.Start(ctx)
}

func (a *app) run(ctx context.Context, args []string) error {
	f, c := a.flags("run"), createFlags{}
	c.add(f)
	f.BoolVar(&c.detach, "detach", false, "leave the container running")
	f.BoolVar(&c.detach, "d", false, "same as --detach")
	keep := f.Bool("keep", false, "do not delete the container after it has exited")
	rest, err := parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	container, err := a.make(ctx, rest[0], c)
	if err != nil {
		return err
	}
	if c.detach {
		if err := container.Start(ctx); err != nil {
			return errors.Join(err, container.Delete(context.Background(), true))
		}
		return nil
	}
	status, err := foreground(ctx, container)
	if err != nil || !*keep {
		err = errors.Join(err, container.Delete(context.Background(), true))
	}
	if err == nil && status.Code != 0 {
		err = exitCode(status.Code)
	}
	return err
}

// foreground starts the container and stays until it ends, passing on signals and the terminal.
func foreground(ctx context.Context, c *ociruntime.Container) (ociruntime.ExitStatus, error) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	defer signal.Stop(signals)
	if c.Console != nil {
		restore, err := join(c.Console)
		if err != nil {
			return ociruntime.ExitStatus{}, err
		}
		defer restore()
	}
	if err := c.Start(ctx); err != nil {
		return ociruntime.ExitStatus{}, err
	}
	go passSignals(signals, c.PidFD, c.Console)
	return c.Wait(ctx)
}

// passSignals gives every signal to the process, and every change of size to its terminal.
func passSignals(signals <-chan os.Signal, pidfd, console *os.File) {
	for s := range signals {
		switch s {
		case syscall.SIGCHLD, syscall.SIGURG:
		case syscall.SIGWINCH:
			resize(console)
		default:
			sys.SignalPidFD(pidfd, s.(syscall.Signal)) // it may be gone, and that is all that can go wrong
		}
	}
}

func resize(console *os.File) {
	if console == nil {
		return
	}
	if cols, rows, err := term.GetSize(0); err == nil {
		sys.Resize(console, uint16(rows), uint16(cols))
	}
}

// join connects the caller's terminal or streams with a container's. restore waits for the last output.
func join(console *os.File) (restore func(), err error) {
	var saved *term.State
	if term.IsTerminal(0) {
		if saved, err = term.MakeRaw(0); err != nil {
			return nil, fmt.Errorf("set up terminal: %w", err)
		}
		resize(console)
	}
	done := make(chan struct{})
	go io.Copy(console, os.Stdin)
	go func() {
		defer close(done)
		io.Copy(os.Stdout, console) // ends with EIO when the last process has closed its side
	}()
	return func() {
		<-done
		console.Close()
		if saved != nil {
			term.Restore(0, saved)
		}
	}, nil
}

// loadBundle reads config.json of a bundle and returns the bundle's absolute path.
func loadBundle(dir string) (*specs.Spec, string, error) {
	bundle, err := filepath.Abs(dir)
	if err != nil {
		return nil, "", fmt.Errorf("find bundle: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, "", fmt.Errorf("read bundle: %w", err)
	}
	spec := &specs.Spec{}
	if err := json.Unmarshal(text, spec); err != nil {
		return nil, "", fmt.Errorf("decode %s/config.json: %w", bundle, err)
	}
	if err := checkVersion(spec.Version); err != nil {
		return nil, "", err
	}
	return spec, bundle, nil
}

// checkVersion accepts specs of version 1.
func checkVersion(version string) error {
	var major, minor, patch int
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); err != nil {
		return fmt.Errorf("ociVersion %q is not a version", version)
	}
	if major != 1 {
		return fmt.Errorf("ociVersion %s is not supported: this runtime knows version 1", version)
	}
	return nil
}

func checkTerminal(terminal, detach bool, socket string) error {
	if terminal && detach && socket == "" {
		return errors.New("cannot allocate tty if davit-oci will detach without setting console socket")
	}
	if socket != "" && !(terminal && detach) {
		return errors.New("cannot use console socket if davit-oci will not detach or allocate tty")
	}
	return nil
}

// preserved returns the caller's descriptors from 3 on.
func preserved(n int) ([]*os.File, error) {
	if given, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err == nil {
		n += given
	}
	var files []*os.File
	for fd := 3; fd < 3+n; fd++ {
		if _, err := os.Stat("/proc/self/fd/" + strconv.Itoa(fd)); err != nil {
			return nil, fmt.Errorf("descriptor %d is to be preserved but is not open", fd)
		}
		files = append(files, os.NewFile(uintptr(fd), "fd"+strconv.Itoa(fd)))
	}
	return files, nil
}

// sendConsole hands a terminal's master to whoever listens on the socket, and closes it.
func sendConsole(path string, master *os.File) error {
	defer master.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		return fmt.Errorf("connect to console socket: %w", err)
	}
	defer conn.Close()
	socket, err := conn.(*net.UnixConn).File()
	if err != nil {
		return fmt.Errorf("connect to console socket: %w", err)
	}
	defer socket.Close()
	if err := sys.SendWithFiles(socket, []byte("/dev/ptmx"), []int{int(master.Fd())}); err != nil {
		return fmt.Errorf("send terminal: %w", err)
	}
	return nil
}

// writePid writes a pid file so that nobody reads half of it.
func writePid(path string, pid int) error {
	hidden := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(hidden, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	if err := os.Rename(hidden, path); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}
