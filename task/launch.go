package task

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"davit/oci/errdefs"
)

// LaunchOptions say how to start a monitor.
type LaunchOptions struct {
	Binary string   // path of davit-oci
	Socket string   // absolute; its directory is made
	Dir    string   // absolute; the monitor's state, gone at reboot
	Args   []string // further arguments of `davit-oci monitor`
}

// Launch makes sure that a monitor listens on the socket: it starts one, detached, when none does, and
// replaces a socket that a dead one left. Any number of callers may do so at once.
//
// The monitor runs in a session of its own with / as working directory, inherits no file but the
// listening socket, and writes its diagnostics to Dir/monitor.log. The socket is made here and handed
// over, so that a client can connect at once and waits for the monitor's first answer only.
func Launch(ctx context.Context, o LaunchOptions) error {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("launch monitor: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(o.Socket), 0o711); err != nil {
		return fmt.Errorf("launch monitor: %w", err)
	}
	lock, err := LockSocket(o.Socket)
	if err != nil {
		return fmt.Errorf("launch monitor: %w", err)
	}
	defer lock.Close()
	var d net.Dialer
	if conn, err := d.DialContext(ctx, "unixpacket", o.Socket); err == nil {
		return conn.Close()
	} else if ctx.Err() != nil {
		return ctx.Err()
	}
	listener, err := Listen(o.Socket)
	if err != nil {
		return fmt.Errorf("launch monitor: %w", err)
	}
	defer listener.Close()
	if err := startMonitor(o, listener); err != nil {
		os.Remove(o.Socket)
		return fmt.Errorf("launch monitor: %w", err)
	}
	return nil
}

// Connect returns a client of the monitor, which it launches when none listens. An idle monitor may leave
// just when we come, and one that was killed goes on listening until the kernel has closed all it had: so
// it is tried again for a while.
func Connect(ctx context.Context, o LaunchOptions) (*Client, error) {
	for deadline := time.Now().Add(connectPatience); ; {
		if err := Launch(ctx, o); err != nil {
			return nil, err
		}
		c, err := Dial(ctx, o.Socket)
		if err == nil || !errors.Is(err, errdefs.ErrUnavailable) || time.Now().After(deadline) {
			return c, err
		}
		select {
		case <-time.After(connectPause):
		case <-ctx.Done():
			return nil, errdefs.As(errdefs.ErrCanceled, ctx.Err())
		}
	}
}

// How long Connect tries, and how long it waits before it tries again.
const (
	connectPatience = 5 * time.Second
	connectPause    = 10 * time.Millisecond
)

// LockSocket takes the lock that guards making and removing the socket; closing the file releases it.
func LockSocket(socket string) (*os.File, error) {
	f, err := os.OpenFile(socket+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

// Listen makes the socket, for root only, in place of one that nobody listens on. The caller holds the
// lock. Closing the listener leaves the socket's file.
func Listen(socket string) (*net.UnixListener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// startMonitor runs the monitor with the listener as its descriptor 3.
func startMonitor(o LaunchOptions, l *net.UnixListener) error {
	file, err := l.File()
	if err != nil {
		return err
	}
	defer file.Close()
	log, err := os.OpenFile(filepath.Join(o.Dir, "monitor.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append([]string{"monitor", "--socket", o.Socket, "--dir", o.Dir, "--listen-fd", "3"}, o.Args...)
	cmd := exec.Command(o.Binary, args...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait() // reaps it, should it end before this process does
	return nil
}
