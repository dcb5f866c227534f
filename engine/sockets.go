package engine

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// sockets are the TCP sockets of a network namespace.
type sockets struct {
	listening map[uint16]bool
	open      map[uint16]int // connections by their port here, those that wait out their end left aside
}

// States of TCP sockets in /proc/net/tcp: proc_pid_net(5).
const (
	tcpTimeWait = 0x06
	tcpClose    = 0x07
	tcpListen   = 0x0a
)

// readSockets lists the TCP sockets of the network namespace that a process is in.
func readSockets(pid int) (sockets, error) {
	all := sockets{listening: map[uint16]bool{}, open: map[uint16]int{}}
	for _, family := range []string{"tcp", "tcp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, family))
		if errors.Is(err, fs.ErrNotExist) && family == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return all, fmt.Errorf("list sockets of process %d: %w", pid, err)
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			all.add(lines.Text())
		}
		f.Close()
	}
	return all, nil
}

// add reads one line: "0: 0100007F:1F90 00000000:0000 0A ...".
func (s *sockets) add(line string) {
	fields := strings.Fields(line)
	if len(fields) < 4 {
		return
	}
	_, local, _ := strings.Cut(fields[1], ":")
	port, err := strconv.ParseUint(local, 16, 16)
	state, err2 := strconv.ParseUint(fields[3], 16, 8)
	if err != nil || err2 != nil {
		return // the heading
	}
	switch state {
	case tcpListen:
		s.listening[uint16(port)] = true
	case tcpTimeWait, tcpClose:
	default:
		s.open[uint16(port)]++
	}
}

// served is how many connections there are to what listens.
func (s *sockets) served() int {
	n := 0
	for port := range s.listening {
		n += s.open[port]
	}
	return n
}
