package dir

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// stripes is the number of locks that all keys share.
const stripes = 64

// locked runs f while nobody else, in any process, works on a path that has the same lock.
func (s *Store) locked(path string, f func() error) (err error) {
	h := fnv.New32a()
	h.Write([]byte(path))
	stripe := h.Sum32() % stripes
	s.locks[stripe].Lock()
	defer s.locks[stripe].Unlock()
	file, err := os.OpenFile(filepath.Join(s.root, "locks", strconv.Itoa(int(stripe))), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
	for errors.Is(err, syscall.EINTR) {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	return f()
}
