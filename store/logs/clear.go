package logs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Clear empties the log whose current file is path, also while a container writes to it and others
// follow it. A log that does not exist is empty already.
func Clear(path string) error {
	if err := os.Truncate(path, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("clear log: %w", err)
	}
	return removeRotated(path)
}

// Remove deletes all files of a log that nobody writes to any more.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove log: %w", err)
	}
	return removeRotated(path)
}

func removeRotated(path string) error {
	files, err := rotated(path)
	for _, file := range files {
		if e := os.Remove(file); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove old log: %w", e))
		}
	}
	return err
}

// Size returns the bytes of all files of a log.
func Size(path string) (int64, error) {
	files, err := rotated(path)
	if err != nil {
		return 0, err
	}
	var size int64
	for _, file := range append(files, path) {
		info, err := os.Stat(file)
		if err == nil {
			size += info.Size()
		} else if !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("size of log: %w", err)
		}
	}
	return size, nil
}

// rotated returns the files before the current one.
func rotated(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list log: %w", err)
	}
	var files []string
	for _, entry := range entries {
		number, ok := strings.CutPrefix(entry.Name(), filepath.Base(path)+".")
		if _, err := strconv.Atoi(number); ok && err == nil {
			files = append(files, filepath.Join(filepath.Dir(path), entry.Name()))
		}
	}
	return files, nil
}
