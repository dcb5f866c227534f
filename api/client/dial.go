package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"davit/oci/errdefs"
)

// Dialer makes connections to an engine.
type Dialer interface {
	Dial(ctx context.Context) (net.Conn, error)
}

// TLS names the PEM files of a TLS connection; Verify checks the engine's certificate against CA.
type TLS struct {
	CA, Cert, Key string
	Verify        bool
}

// Host returns the dialer of an address in docker's form: unix:///path, tcp://host:port, ssh://[user@]host.
// tls is nil for a plain connection.
func Host(address string, tls *TLS) (Dialer, error) {
	scheme, rest, ok := strings.Cut(address, "://")
	switch {
	case !ok:
		return nil, errdefs.Invalid("unable to parse docker host `%s`", address)
	case scheme == "unix":
		return unixSocket(rest), nil
	case scheme == "tcp" && tls == nil:
		return tcp(rest), nil
	case scheme == "tcp":
		return helper{davitd(), tls.args(rest), address}, nil
	case scheme == "ssh":
		return helper{"ssh", []string{"-T", "--", strings.TrimSuffix(rest, "/"), "docker", "system", "dial-stdio"}, address}, nil
	}
	return nil, errdefs.Invalid("unsupported protocol %q in host %q (unix, tcp and ssh are supported)", scheme, address)
}

// Refused is the error of a host where no engine listens.
type Refused struct {
	Address string
	err     error
}

func (e *Refused) Error() string {
	return fmt.Sprintf("Cannot connect to the davit engine at %s. Is davitd running?", e.Address)
}
func (e *Refused) Unwrap() error { return e.err }

type unixSocket string

func (s unixSocket) Dial(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", string(s))
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, errdefs.Forbidden("permission denied while trying to connect to the davit engine at unix://%s: run as root or as a member of the socket's group", string(s))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, &Refused{"unix://" + string(s), err}
	}
	return nil, fmt.Errorf("connect to the davit engine at unix://%s: %w", string(s), err)
}

type tcp string

func (t tcp) Dial(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", string(t))
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, &Refused{"tcp://" + string(t), err}
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the davit engine at tcp://%s: %w", string(t), err)
	}
	return conn, nil
}

// helper is a process that carries the connection on its standard input and output.
type helper struct {
	path    string
	args    []string
	address string
}

// Dial gives the process one end of a socket pair. It ends when the other end is closed.
func (h helper) Dial(ctx context.Context) (net.Conn, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", h.address, err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "engine"), os.NewFile(uintptr(pair[1]), "helper")
	defer theirs.Close()
	cmd := exec.Command(h.path, h.args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", h.address, err), ours.Close())
	}
	go func() { _ = cmd.Wait() }() // its failure shows as the connection's end
	conn, err := net.FileConn(ours)
	return conn, errors.Join(err, ours.Close())
}

// args are those of "davitd connect".
func (t *TLS) args(address string) []string {
	args := []string{"connect", "--tlscacert", t.CA, "--tlscert", t.Cert, "--tlskey", t.Key}
	if t.Verify {
		args = append(args, "--tlsverify")
	}
	return append(args, address)
}

// davitd is the engine program beside this one, or the one in PATH.
func davitd() string {
	if own, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(own), "davitd")
		if _, err := os.Stat(beside); err == nil {
			return beside
		}
	}
	return "davitd"
}
