// Package sys is the one place that speaks to the kernel past the standard library. Each wrapper
// names its manual page and the Linux version it needs, repeats a call that a signal interrupted, and
// returns the plain error number (wrapped by nothing), so that callers compare with errors.Is and say
// themselves what they were doing. Descriptors it returns are close-on-exec and belong to the caller.
//
// One topic, one file.
package sys

import "golang.org/x/sys/unix"

// retry repeats call while a signal interrupts it (or openat2 lost a race with a rename).
func retry(call func() error) error {
	for {
		err := call()
		if err != unix.EINTR {
			return err
		}
	}
}

// retryFD is retry for calls that return a descriptor.
func retryFD(call func() (int, error)) (int, error) {
	for {
		fd, err := call()
		if err != unix.EINTR {
			return fd, err
		}
	}
}
