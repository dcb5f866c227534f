package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"davit/api/client"
	"davit/cli/opts"
)

// defaultHost is where davitd listens when nothing else is said.
const defaultHost = "unix:///run/davit/davit.sock"

// globals are the flags before the verb.
type globals struct {
	hosts                  []string
	config, context, level string
	debug, tls, verify     bool
	version                bool
	ca, cert, key          string
}

// valueFlags are those that take the next word.
var valueFlags = []string{"-H", "--host", "--config", "-c", "--context", "-l", "--log-level", "--tlscacert", "--tlscert", "--tlskey"}

func (g *globals) add(root *cobra.Command) {
	flags := root.Flags()
	flags.VarP(opts.ListOf(&g.hosts), "host", "H", "Engine socket to connect to (unix://, tcp://, ssh://)")
	flags.StringVar(&g.config, "config", configDir(), "Directory of the client's configuration")
	flags.StringVarP(&g.context, "context", "c", "", "Name of the context to use (\"default\" is the only one)")
	flags.StringVarP(&g.level, "log-level", "l", "info", `Logging level ("debug", "info", "warn", "error", "fatal")`)
	flags.BoolVarP(&g.debug, "debug", "D", false, "Enable debug mode")
	flags.BoolVarP(&g.version, "version", "v", false, "Print version information and quit")
	flags.BoolVar(&g.tls, "tls", false, "Use TLS; implied by --tlsverify")
	flags.BoolVar(&g.verify, "tlsverify", os.Getenv("DOCKER_TLS_VERIFY") != "", "Use TLS and verify the engine")
	certs := os.Getenv("DOCKER_CERT_PATH")
	if certs == "" {
		certs = configDir()
	}
	flags.StringVar(&g.ca, "tlscacert", filepath.Join(certs, "ca.pem"), "Trust certs signed only by this CA")
	flags.StringVar(&g.cert, "tlscert", filepath.Join(certs, "cert.pem"), "Path to TLS certificate file")
	flags.StringVar(&g.key, "tlskey", filepath.Join(certs, "key.pem"), "Path to TLS key file")
}

// configDir is docker's, so that a login made with either is a login for both.
func configDir() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/"
	}
	return filepath.Join(home, ".docker")
}

// dialer finds the engine: -H, DAVIT_HOST, DOCKER_HOST, or the default, where one is started if need be.
func (g *globals) dialer(notices io.Writer) (client.Dialer, error) {
	if g.context != "" && g.context != "default" {
		return nil, fmt.Errorf("context %q not found: davit has the context \"default\" only; use -H", g.context)
	}
	if len(g.hosts) > 1 {
		return nil, errors.New("specify only one -H")
	}
	host := ""
	for _, candidate := range append(append([]string{}, g.hosts...), os.Getenv("DAVIT_HOST"), os.Getenv("DOCKER_HOST")) {
		if candidate != "" {
			host = candidate
			break
		}
	}
	if host == "" {
		dialer, err := client.Host(defaultHost, nil)
		return starter{dialer, notices}, err
	}
	if !strings.Contains(host, "://") {
		host = "tcp://" + host
	}
	if !g.tls && !g.verify {
		return client.Host(host, nil)
	}
	return client.Host(host, &client.TLS{CA: g.ca, Cert: g.cert, Key: g.key, Verify: g.verify})
}

// starter dials the default engine and starts it when it does not run and we are root.
type starter struct {
	client.Dialer
	notices io.Writer
}

// Dial implements client.Dialer.
func (s starter) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := s.Dialer.Dial(ctx)
	var refused *client.Refused
	if !errors.As(err, &refused) || os.Geteuid() != 0 {
		return conn, err
	}
	if err := s.start(ctx); err != nil {
		return nil, fmt.Errorf("%w; starting one failed: %w", refused, err)
	}
	return s.Dialer.Dial(ctx)
}

// start runs davitd detached. Of several commands that find no engine at once, one starts it and the
// others wait for the lock.
func (s starter) start(ctx context.Context) (err error) {
	const dir = "/run/davit"
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "start.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	if conn, err := s.Dialer.Dial(ctx); err == nil {
		return conn.Close()
	}
	path, err := engineProgram()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, "davitd.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	cmd := exec.Command(path)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Fprintf(s.notices, "davit: started the engine %s (pid %d, log %s)\n", path, cmd.Process.Pid, log.Name())
	return s.await(ctx, cmd, log.Name())
}

// await dials until the engine answers or has exited.
func (s starter) await(ctx context.Context, cmd *exec.Cmd, log string) error {
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for {
		if conn, err := s.Dialer.Dial(ctx); err == nil {
			return conn.Close()
		}
		select {
		case err := <-exited:
			return fmt.Errorf("davitd ended at once (%w), see %s", err, log)
		case <-limit.C:
			return fmt.Errorf("davitd does not answer after 20 s, see %s", log)
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// engineProgram is the davitd beside this program, or the one in PATH.
func engineProgram() (string, error) {
	if own, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(own), "davitd")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return exec.LookPath("davitd")
}
