package sys

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// OnDyingThread runs do on an operating system thread that ends with it, whatever do has made of the
// thread: other namespaces, another root. It is never the main thread, which cannot end alone, and whose
// namespaces /proc/self shows.
func OnDyingThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			err := OnDyingThread(do) // on another, since this goroutine keeps the main thread busy
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- do() // and the thread stays locked
	}()
	return <-done
}
