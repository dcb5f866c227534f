package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// write sets one control file. Control files take a value in one write(2) and are never created.
func (d dir) write(file, value string) error {
	name := d.path + "/" + file
	fd, err := retry(func() (int, error) { return syscall.Open(name, syscall.O_WRONLY|syscall.O_CLOEXEC, 0) })
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	_, err = retry(func() (int, error) { return syscall.Write(fd, []byte(value)) })
	syscall.Close(fd) // nothing is buffered: write reported all there is to know
	if err != nil {
		return &fs.PathError{Op: "write " + strconv.Quote(value) + " to", Path: name, Err: err}
	}
	return nil
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// read returns a control file without its final newline.
func (d dir) read(file string) (string, error) {
	b, err := os.ReadFile(d.path + "/" + file)
	return strings.TrimSuffix(string(b), "\n"), err
}

// uint reads a file that holds one number; "max", and v1's huge number for unlimited, are 0.
func (d dir) uint(file string) (uint64, error) {
	s, err := d.read(file)
	if err != nil || s == "max" {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s/%s: %w", d.path, file, err)
	}
	if n >= unlimited {
		return 0, nil
	}
	return n, nil
}

// unlimited is where v1's page counters stop: LONG_MAX rounded down to a page, of up to 64 KiB.
const unlimited = 1<<63 - 1<<16

// keyed reads a flat-keyed file: one "name number" per line.
func (d dir) keyed(file string) (map[string]uint64, error) {
	s, err := d.read(file)
	if err != nil {
		return nil, err
	}
	m := make(map[string]uint64, 40)
	for line := range strings.SplitSeq(s, "\n") {
		name, value, ok := strings.Cut(line, " ")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			m[name] = n
		}
	}
	return m, nil
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func utoa(n uint64) string { return strconv.FormatUint(n, 10) }
