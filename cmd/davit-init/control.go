package main

import (
	"syscall"

	"golang.org/x/sys/unix"

	"davit/ociruntime/step"
)

// control is the conversation with the runtime: first over the control socket, after Park over the
// connection of whoever starts the container.
type control struct{ fd int }

// detailed is an error with words of its own before the error number's.
type detailed struct {
	text string
	err  error
}

func (d *detailed) Error() string {
	if d.err == nil {
		return d.text
	}
	return d.text + ": " + d.err.Error()
}

// detail says more about err than the step's name does.
func detail(text string, err error) error { return &detailed{text, err} }

func failureOf(s *step.Step, err error) step.Failure {
	f := step.Failure{Op: s.Op, Name: s.String()}
	for err != nil {
		switch e := err.(type) {
		case syscall.Errno:
			f.Errno = int(e)
			return f
		case *detailed:
			if f.Detail != "" {
				f.Detail += ": "
			}
			f.Detail += e.text
			err = e.err
		default:
			f.Detail += err.Error()
			return f
		}
	}
	return f
}

// fail reports what went wrong and ends the process.
func (c *control) fail(s *step.Step, err error) {
	c.send(step.Failed, step.EncodeFailure(failureOf(s, err)), -1)
	for {
		syscall.Exit(1)
	}
}

func (c *control) warn(s *step.Step, err error) {
	c.send(step.Warning, step.EncodeFailure(failureOf(s, err)), -1)
}

// send writes one frame, with a descriptor unless that is negative. A runtime that is gone is no
// reason to stop: a container outlives it.
func (c *control) send(kind step.Kind, payload []byte, fd int) {
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	frame := step.Frame(kind, payload)
	for {
		_, err := unix.SendmsgN(c.fd, frame, rights, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return
		}
	}
}

// ask sends a frame and waits for the runtime's Go.
func (c *control) ask(kind step.Kind, fd int) error {
	c.send(kind, nil, fd)
	header := make([]byte, step.HeaderSize)
	for n := 0; n < len(header); {
		m, err := read(c.fd, header[n:])
		if err != nil {
			return detail("wait for runtime", err)
		}
		n += m
	}
	if got, _ := step.Header(header); got != step.Go {
		return detail("runtime gave no go-ahead", nil)
	}
	return nil
}

// receiveProgram reads the first frame and the descriptors that come with it.
func (c *control) receiveProgram() ([]int, []step.Step, error) {
	buffer := make([]byte, 0, 32<<10)
	var files []int
	need := step.HeaderSize
	for len(buffer) < need {
		if len(buffer) == cap(buffer) {
			buffer = append(make([]byte, 0, need), buffer...)
		}
		n, fds, err := receive(c.fd, buffer[len(buffer):cap(buffer)])
		if err != nil {
			return nil, nil, detail("receive program", err)
		}
		files = append(files, fds...)
		buffer = buffer[:len(buffer)+n]
		if len(buffer) >= step.HeaderSize {
			_, size := step.Header(buffer)
			need = step.HeaderSize + size
		}
	}
	count, steps, err := step.Decode(buffer[step.HeaderSize:])
	if err == nil && count != len(files) {
		err = detail("descriptors are missing", nil)
	}
	return files, steps, err
}

func receive(socket int, into []byte) (int, []int, error) {
	rights := make([]byte, unix.CmsgSpace(253*4))
	n, rightsN, _, _, err := unix.Recvmsg(socket, into, rights, unix.MSG_CMSG_CLOEXEC)
	for err == unix.EINTR {
		n, rightsN, _, _, err = unix.Recvmsg(socket, into, rights, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return 0, nil, err
	}
	if n == 0 {
		return 0, nil, unix.EPIPE
	}
	var files []int
	messages, err := unix.ParseSocketControlMessage(rights[:rightsN])
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return n, files, err
		}
		files = append(files, fds...)
	}
	return n, files, err
}

// read is read(2) for which the end of file is an error.
func read(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err == unix.EINTR {
			continue
		}
		if n == 0 && err == nil {
			err = unix.EPIPE
		}
		return n, err
	}
}
