package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/build"
	wire "github.com/moby/moby/api/types/container"
	imagewire "github.com/moby/moby/api/types/image"
	volumewire "github.com/moby/moby/api/types/volume"

	"davit/engine/container"
	"davit/internal/diskusage"
	"davit/kernel/sys"
	"davit/oci"
)

// DiskUsage is what docker system df shows: bytes as du -x counts them. Every byte of the data root is in
// exactly one place: LayersSize, a container, a volume, a cache record that is not Shared, or Root.Other.
type DiskUsage struct {
	LayersSize int64 // images' layers and blobs
	Images     []imagewire.Summary
	Containers []wire.Summary // SizeRw: what it wrote, its log and its files in /etc
	Volumes    []volumewire.Volume
	BuildCache []build.CacheRecord
	Root       *RootUsage // only when all kinds were asked for
}

// RootUsage is about the data root as a whole. Sizes are bytes.
type RootUsage struct {
	Path  string
	Used  int64 // by all that lies there
	Other int64 // of that: records, build contexts, what is being made or deleted
	Disk  int64 // size of the file system
	Free  int64
}

// UsageKinds choose what is counted.
type UsageKinds struct{ Images, Containers, Volumes, BuildCache bool }

func (k UsageKinds) all() bool { return k.Images && k.Containers && k.Volumes && k.BuildCache }

// account is one count of a data root.
type account struct {
	*System
	usage DiskUsage
	sum   int64
	seen  map[string]bool // directories whose bytes are counted
}

func (a *account) add(dir string, bytes int64) {
	a.seen[filepath.Clean(dir)] = true
	a.sum += bytes
}

// DiskUsage counts.
func (y *System) DiskUsage(ctx context.Context, k UsageKinds) (DiskUsage, error) {
	a := &account{System: y, seen: map[string]bool{}, usage: DiskUsage{
		Images: []imagewire.Summary{}, Containers: []wire.Summary{}, Volumes: []volumewire.Volume{}, BuildCache: []build.CacheRecord{},
	}}
	for _, part := range []struct {
		asked bool
		count func(context.Context) error
	}{
		{k.Images || k.BuildCache, func(ctx context.Context) error { return a.layers(ctx, k) }},
		{k.Images, a.images},
		{k.Containers, a.containers},
		{k.Volumes, a.volumes},
		{k.all(), a.root},
	} {
		if !part.asked {
			continue
		}
		if err := part.count(ctx); err != nil {
			return DiskUsage{}, fmt.Errorf("measure disk usage: %w", err)
		}
	}
	return a.usage, nil
}

// layers counts layers and blobs. What only the build cache keeps is its own, all else the images'.
func (a *account) layers(ctx context.Context, k UsageKinds) error {
	stacks, err := a.stacksInUse(ctx)
	if err != nil {
		return err
	}
	used, err := a.Layers.Usage(ctx, stacks)
	if err != nil {
		return err
	}
	blobs, err := a.Content.Usage(ctx)
	if err != nil {
		return err
	}
	a.add(filepath.Join(a.Options.Root, "content"), blobs)
	a.usage.LayersSize = blobs
	cached := map[oci.DiffID]bool{}
	for _, id := range a.Cache.Layers() {
		cached[id] = true
	}
	own := map[oci.DiffID]int64{}
	for _, l := range used {
		a.add(l.Path, l.Disk)
		if !l.Kept && cached[l.DiffID] {
			own[l.DiffID] += l.Disk
		} else {
			a.usage.LayersSize += l.Disk
		}
	}
	if !k.BuildCache {
		return nil
	}
	a.usage.BuildCache, err = a.builds.usage(ctx, own)
	for _, r := range a.usage.BuildCache {
		if r.Type == "exec.cachemount" {
			a.add(filepath.Join(a.Options.Root, "build", "cache-mounts", r.ID), r.Size)
		}
	}
	return err
}

func (a *account) images(ctx context.Context) error {
	usages, err := a.Options.Images.DiskUsage(ctx)
	if err != nil {
		return err
	}
	users := a.ImageUsers()
	for _, usage := range usages {
		s := imageSummary(usage.Image)
		s.SharedSize, s.Size = usage.Shared, usage.Shared+usage.Unique
		s.Containers = int64(len(users[usage.Image.ID]))
		a.usage.Images = append(a.usage.Images, s)
	}
	return nil
}

func (a *account) containers(ctx context.Context) error {
	list, err := (&Views{a.shared}).List(ctx, ListOptions{All: true, Size: true})
	if err != nil {
		return err
	}
	for _, s := range list {
		found, err := a.roster.find(s.ID)
		if err != nil {
			continue // removed meanwhile
		}
		if s.SizeRw, err = a.containerDisk(ctx, found.record()); err != nil {
			return err
		}
		for _, dir := range a.containerDirs(found.record()) {
			a.seen[dir] = true
		}
		a.sum += s.SizeRw
		a.usage.Containers = append(a.usage.Containers, s)
	}
	return nil
}

// containerDirs are the directories of a container in the data root.
func (s *shared) containerDirs(r *container.Record) []string {
	var dirs []string
	if upper, err := s.Snapshots.Upper(r.ID); err == nil {
		dirs = append(dirs, filepath.Dir(upper))
	}
	if strings.HasPrefix(r.Dir, s.Options.Root+"/") {
		dirs = append(dirs, r.Dir)
	}
	return dirs
}

// containerDisk returns the bytes that a container takes on the disk beyond its image.
func (s *shared) containerDisk(ctx context.Context, r *container.Record) (int64, error) {
	var sum int64
	for _, dir := range s.containerDirs(r) {
		u, err := diskusage.Of(ctx, dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		sum += u.Bytes
	}
	return sum, nil
}

func (a *account) volumes(ctx context.Context) error {
	used := a.usedVolumes()
	for _, v := range a.Options.Volumes.List(ctx) {
		size, err := a.Options.Volumes.Usage(ctx, v.Name)
		if isNotFound(err) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		a.add(filepath.Dir(v.Path), size)
		w := wireVolume(v)
		w.UsageData = &volumewire.UsageData{Size: size, RefCount: int64(used[v.Name])}
		a.usage.Volumes = append(a.usage.Volumes, w)
	}
	return nil
}

// root counts what is left of the data root.
func (a *account) root(ctx context.Context) error {
	other, err := diskusage.Without(ctx, a.Options.Root, a.seen)
	if err != nil {
		return err
	}
	space, err := sys.SpaceOf(a.Options.Root)
	if err != nil {
		return err
	}
	a.usage.Root = &RootUsage{Path: a.Options.Root, Used: a.sum + other.Bytes, Other: other.Bytes, Disk: space.Size, Free: space.Free}
	return nil
}
