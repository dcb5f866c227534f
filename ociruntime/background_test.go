package ociruntime_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// background is for clean-up, when a test's own context has ended.
var background = context.Background()

// removeCgroups removes the parent of all tests' control groups, which the containers' leave behind.
func removeCgroups() error {
	parents, err := filepath.Glob("/sys/fs/cgroup/*/davit-test")
	if err != nil {
		return err
	}
	for _, dir := range append(parents, "/sys/fs/cgroup/davit-test") {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
