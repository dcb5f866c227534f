package engine

import (
	"context"
	"slices"
	"strings"

	wire "github.com/moby/moby/api/types/container"

	"davit/store/layer"
)

// Changes lists what a container changed of its image: docker diff. What davit itself puts into every
// root, as places to mount on, is not the container's change.
func (v *Views) Changes(ctx context.Context, name string) ([]wire.FilesystemChange, error) {
	a, err := v.roster.find(name)
	if err != nil {
		return nil, err
	}
	changes, err := v.Snapshots.Changes(ctx, a.id)
	if err != nil {
		return nil, err
	}
	changes = slices.DeleteFunc(changes, func(c layer.Change) bool {
		return c.Kind == layer.Added && slices.Contains(mountPlaces(), c.Path)
	})
	list := []wire.FilesystemChange{}
	for i, c := range changes {
		last := i == len(changes)-1
		if c.Path == "/etc" && c.Kind == layer.Modified && (last || !strings.HasPrefix(changes[i+1].Path, "/etc/")) {
			continue
		}
		list = append(list, wire.FilesystemChange{Kind: wire.ChangeType(c.Kind), Path: c.Path})
	}
	return list, nil
}

// mountPlaces are what every container has mounted.
func mountPlaces() []string {
	return []string{"/dev", "/proc", "/sys", "/etc", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
}
