package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	wire "github.com/moby/moby/api/types/container"

	"davit/store/layer"
)

// Changes lists what a container changed of its image: docker diff.
func (v *Views) Changes(ctx context.Context, name string) ([]wire.FilesystemChange, error) {
	a, err := v.roster.find(name)
	if err != nil {
		return nil, err
	}
	changes, _, err := v.changes(ctx, a.id)
	if err != nil {
		return nil, err
	}
	list := []wire.FilesystemChange{}
	for _, c := range changes {
		list = append(list, wire.FilesystemChange{Kind: wire.ChangeType(c.Kind), Path: c.Path})
	}
	return list, nil
}

// dockerenv is in the root of every container, as Docker's init layer has it there.
const dockerenv = "/.dockerenv"

// changes tells what a container wrote from the places in its writable layer that davit made to mount on;
// neither diff nor commit have those. Mount points of volumes count as the container's, as in Docker.
func (s *shared) changes(ctx context.Context, id string) (own []layer.Change, places map[string]bool, err error) {
	all, err := s.Snapshots.Changes(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	upper, err := s.Snapshots.Upper(id)
	if err != nil {
		return nil, nil, err
	}
	places = map[string]bool{}
	for _, c := range slices.Backward(all) { // what is in a directory comes before it
		place, err := isMountPlace(upper, c, own)
		if err != nil {
			return nil, nil, fmt.Errorf("compare with the image: %w", err)
		}
		if place {
			places[c.Path] = true
		} else {
			own = append(own, c)
		}
	}
	slices.Reverse(own)
	return own, places, nil
}

// isMountPlace says whether a change is one of the directories and empty files on which every container has
// something mounted, or its mark, and nothing else. below are the container's own changes that sort after it.
func isMountPlace(upper string, c layer.Change, below []layer.Change) (bool, error) {
	switch c.Path {
	case dockerenv: // an image that is an exported container has one too
		return isEmptyFile(filepath.Join(upper, c.Path))
	case "/etc/hosts", "/etc/hostname", "/etc/resolv.conf":
		if c.Kind != layer.Added {
			return false, nil
		}
		return isEmptyFile(filepath.Join(upper, c.Path))
	case "/dev", "/proc", "/sys", "/etc":
		return (c.Kind == layer.Added || c.Kind == layer.Modified && c.Path == "/etc") &&
			!slices.ContainsFunc(below, func(b layer.Change) bool { return strings.HasPrefix(b.Path, c.Path+"/") }), nil
	}
	return false, nil
}

// isEmptyFile says whether a regular file without content is there.
func isEmptyFile(path string) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Mode().IsRegular() && info.Size() == 0, err
}
