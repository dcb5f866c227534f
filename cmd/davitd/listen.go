package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// listen opens every socket that --host names.
func listen(c config) ([]net.Listener, error) {
	var all []net.Listener
	for _, host := range c.hosts {
		listeners, err := listenOn(c, host)
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, fmt.Errorf("listen on %s: %w", host, err)
		}
		all = append(all, listeners...)
	}
	return all, nil
}

func listenOn(c config, host string) ([]net.Listener, error) {
	kind, address, ok := strings.Cut(host, "://")
	if !ok {
		return nil, errors.New("want unix://PATH, tcp://HOST:PORT or fd://")
	}
	switch kind {
	case "unix":
		l, err := listenUnix(address, c.group)
		return []net.Listener{l}, err
	case "tcp":
		l, err := listenTCP(c, address)
		return []net.Listener{l}, err
	case "fd":
		return inherited()
	}
	return nil, fmt.Errorf("unknown kind of socket %q", kind)
}

// listenUnix makes a socket that root and one group may use. A socket that nobody listens on any more
// is replaced.
func listenUnix(path, group string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, errors.New("another engine listens there")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	if err := share(path, group); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// share gives a socket to a group: the named one, else docker or davit if there is one.
func share(path, group string) error {
	candidates := []string{"docker", "davit"}
	if group != "" {
		candidates = []string{group}
	}
	gid := 0
	for _, name := range candidates {
		g, err := user.LookupGroup(name)
		if err != nil {
			if group != "" {
				return fmt.Errorf("group of the socket: %w", err)
			}
			continue
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return err
		}
		break
	}
	if err := os.Chown(path, 0, gid); err != nil {
		return err
	}
	return os.Chmod(path, 0o660)
}

func listenTCP(c config, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil || !c.tls {
		return l, err
	}
	settings, err := tlsConfig(c)
	if err != nil {
		l.Close()
		return nil, err
	}
	return tls.NewListener(l, settings), nil
}

func tlsConfig(c config) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.tlsCert, c.tlsKey)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	t := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if !c.tlsVerify {
		return t, nil
	}
	pem, err := os.ReadFile(c.tlsCA)
	if err != nil {
		return nil, fmt.Errorf("load certificate authority: %w", err)
	}
	t.ClientAuth, t.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !t.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load certificate authority: %s holds no certificate", c.tlsCA)
	}
	return t, nil
}

// firstInherited is the number of the first socket that systemd hands over (sd_listen_fds(3)).
const firstInherited = 3

// handedOver is how many there are.
func handedOver() (int, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0, errors.New("no sockets were handed over (LISTEN_PID)")
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 1 {
		return 0, errors.New("no sockets were handed over (LISTEN_FDS)")
	}
	return n, nil
}

// checkHosts refuses, before anything is made, to wait for sockets that nobody has handed over.
func checkHosts(hosts []string) error {
	for _, host := range hosts {
		if !strings.HasPrefix(host, "fd://") {
			continue
		}
		if _, err := handedOver(); err != nil {
			return fmt.Errorf("listen on %s: %w", host, err)
		}
	}
	return nil
}

func inherited() ([]net.Listener, error) {
	n, err := handedOver()
	if err != nil {
		return nil, err
	}
	var all []net.Listener
	for fd := firstInherited; fd < firstInherited+n; fd++ {
		f := os.NewFile(uintptr(fd), "socket "+strconv.Itoa(fd))
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// ready tells systemd that the engine answers (sd_notify(3)); without systemd it does nothing.
func ready() error {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	if address[0] == '@' {
		address = "\x00" + address[1:]
	}
	conn, err := net.Dial("unixgram", address)
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte("READY=1"))
	return err
}
