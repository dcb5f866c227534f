// Package atomicfile replaces small files so that a reader, or a restart after a crash, finds the old
// content or the new one and nothing between.
package atomicfile

import (
	"fmt"
	"os"
	"path/filepath"
)

// Write makes path hold data with the given permissions. When it returns nil, the new content survives
// a power failure: the file is synced before it is renamed into place, the directory after. On an error
// the old content stands, unless only the last step, the directory's sync, failed.
func Write(path string, data []byte, perm os.FileMode) error {
	if err := write(path, data, perm, true); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// WriteUnsynced is Write for files that need not survive a power failure: it is still all or nothing
// for every process, but after the machine went down the file may be missing, old or empty.
func WriteUnsynced(path string, data []byte, perm os.FileMode) error {
	return write(path, data, perm, false)
}

func write(path string, data []byte, perm os.FileMode, sync bool) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // O_EXCL
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Chmod(perm)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// SyncDir makes the names in dir, created, renamed or removed, durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
