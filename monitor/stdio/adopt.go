package stdio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"davit/store/logs"
)

// Inodes name the output pipes of a process, for Adopt. Zero is none.
type Inodes struct {
	Stdout uint64 `json:"stdout,omitempty"`
	Stderr uint64 `json:"stderr,omitempty"`
}

// Inodes returns the names of the output pipes; none with a terminal.
func (s *Streams) Inodes() Inodes {
	if s.config.Terminal || len(s.outputs) < 2 {
		return Inodes{}
	}
	return Inodes{inode(s.outputs[0].file), inode(s.outputs[1].file)}
}

func inode(f *os.File) uint64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// ErrLost says that a stream could not be found again.
var ErrLost = errors.New("stream is lost")

// Adopt takes over the outputs of a process whose monitor died, by finding their pipes among the
// descriptors of pids. It returns usable streams in any case, and ErrLost when an output is not among
// them. Input and terminals died with the monitor.
func Adopt(c Config, names Inodes, pids []int) (*Streams, error) {
	s := newStreams(c)
	defer close(s.ready)
	if c.Terminal {
		return s, ErrLost
	}
	var lost error
	for _, o := range []struct {
		stream logs.Stream
		inode  uint64
	}{{logs.Stdout, names.Stdout}, {logs.Stderr, names.Stderr}} {
		file, err := findPipe(o.inode, pids)
		if err != nil {
			lost = err
			continue
		}
		s.outputs = append(s.outputs, &output{stream: o.stream, file: file})
	}
	s.run()
	return s, lost
}

// findPipe opens the reading end of a pipe that one of the processes has open for writing.
func findPipe(inode uint64, pids []int) (*os.File, error) {
	if inode == 0 {
		return nil, ErrLost
	}
	name := fmt.Sprintf("pipe:[%d]", inode)
	for _, pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // it has exited meanwhile
		}
		for _, entry := range entries {
			path := filepath.Join(dir, entry.Name())
			if target, err := os.Readlink(path); err != nil || target != name {
				continue
			}
			if file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
				return file, nil
			}
		}
	}
	return nil, ErrLost
}
