package metadata

import (
	"os"
	"sync"

	"davit/kernel/sys"
	"davit/oci/errdefs"
)

// reserveBytes is how much more of the disk the file has than its pages need. A transaction writes each
// page that it changes to a new place: one that removes a record needs some ten of them, of 4 KiB.
const reserveBytes = 256 << 10

// reserve keeps the database writable on a full disk: what the file may need next is allocated while
// there is room. Once that fails, what is left of it is for changing and removing records. Where the file
// system cannot allocate in advance, the file has what it has.
type reserve struct {
	path string
	file *os.File // nil: there is none

	mu   sync.Mutex
	have int64 // bytes of the file that are allocated, from its beginning
}

func (r *reserve) open() {
	f, err := os.OpenFile(r.path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	r.file = f
	if info, err := f.Stat(); err == nil {
		_ = r.extend(info.Size()) // the next Update asks again
	}
}

func (r *reserve) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// extend makes sure of the reserve above size, the bytes in use; the error is of a full disk. It allocates
// twice as much as it asks for, so that most calls find everything done.
func (r *reserve) extend(size int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil || r.have >= size+reserveBytes {
		return nil
	}
	want := size + 2*reserveBytes
	err := sys.Preallocate(r.file, want)
	if errdefs.NoSpace(err) {
		return err
	}
	r.have = want // or there is no such thing here, and no reason to ask each time
	return nil
}
