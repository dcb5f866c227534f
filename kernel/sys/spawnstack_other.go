//go:build !amd64

package sys

import "syscall"

const sharesMemory = false

func cloneOnStack(*cloneArgs, uintptr, *spawnCall) (pid, errno uintptr) {
	return 0, uintptr(syscall.ENOSYS)
}
