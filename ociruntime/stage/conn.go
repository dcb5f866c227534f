package stage

import (
	"errors"
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/kernel/sys"
	"davit/ociruntime/step"
)

// conn reads and writes frames.
type conn struct {
	socket *os.File
	buffer []byte
	files  []*os.File
}

type message struct {
	kind    step.Kind
	payload []byte
	files   []*os.File
}

var errEnd = errors.New("connection closed")

// receive returns the next frame, or errEnd when the other side has closed between two. Init never has
// two frames with files under way, so files that have arrived belong to the first frame.
func (c *conn) receive() (message, error) {
	for {
		if m, ok := c.next(); ok {
			return m, nil
		}
		chunk := make([]byte, 4096)
		n, files, err := sys.ReceiveWithFiles(c.socket, chunk)
		c.files = append(c.files, files...)
		if err != nil {
			return message{}, fmt.Errorf("read control socket: %w", err)
		}
		if n == 0 {
			return message{}, errEnd
		}
		c.buffer = append(c.buffer, chunk[:n]...)
	}
}

func (c *conn) next() (message, bool) {
	if len(c.buffer) < step.HeaderSize {
		return message{}, false
	}
	kind, size := step.Header(c.buffer)
	if len(c.buffer) < step.HeaderSize+size {
		return message{}, false
	}
	m := message{kind: kind, payload: c.buffer[step.HeaderSize : step.HeaderSize+size]}
	if kind == step.Master || kind == step.Notify {
		m.files, c.files = c.files, nil
	}
	c.buffer = c.buffer[step.HeaderSize+size:]
	return m, true
}

func (c *conn) send(kind step.Kind) error {
	if err := sys.SendWithFiles(c.socket, step.Frame(kind, nil), nil); err != nil {
		return fmt.Errorf("answer init: %w", err)
	}
	return nil
}

// mapIDs writes the maps of a new user namespace. user_namespaces(7).
func mapIDs(pid int, uids, gids []specs.LinuxIDMapping) error {
	if err := writeMap(fmt.Sprintf("/proc/%d/uid_map", pid), uids); err != nil {
		return err
	}
	return writeMap(fmt.Sprintf("/proc/%d/gid_map", pid), gids)
}

func writeMap(path string, mappings []specs.LinuxIDMapping) error {
	var lines strings.Builder
	for _, m := range mappings {
		fmt.Fprintf(&lines, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open id map: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(lines.String()); err != nil {
		return fmt.Errorf("write id map %q: %w", lines.String(), err)
	}
	return nil
}
