package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	wire "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/events"

	"davit/build"
	"davit/build/cache"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/layer"
)

// Builds makes images from Dockerfiles.
type Builds struct {
	*shared
	builder *build.Builder
}

func newBuilds(s *shared, steps *steps) (*Builds, error) {
	b, err := build.New(build.Options{
		Root: filepath.Join(s.Root, "build"), RunRoot: filepath.Join(s.Run, "build"),
		Images: buildImages{s}, Layers: buildLayers{s}, Runner: steps, Cache: s.Cache,
		Decompress: func(r io.Reader) (io.ReadCloser, error) {
			plain, _, err := layer.Decompress(r)
			return plain, err
		},
		Log: s.Log, Now: s.Now,
	})
	return &Builds{s, b}, err
}

// Source is where a build's files come from.
type Source struct {
	Body   io.Reader // a tar archive in any compression
	Remote string    // a URL in its place
}

// Build builds an image from a request whose Context is opened from a source.
func (b *Builds) Build(ctx context.Context, from Source, r build.Request, progress build.Progress) (build.Result, error) {
	files, err := b.builder.OpenContext(ctx, from.Body, from.Remote)
	if err != nil {
		return build.Result{}, err
	}
	defer files.Close()
	r.Context = files
	result, err := b.builder.Build(ctx, r, progress)
	if err != nil {
		b.afterFull(ctx, err)
		return build.Result{}, err
	}
	for _, tag := range result.Tags {
		b.tellImage(events.ActionTag, string(result.ID), tag)
	}
	return result, nil
}

// usage lists what the build cache holds. own are the layers that nothing but the cache keeps, and what
// they take on the disk; each is counted with one record, and shared with the others that have it.
func (b *Builds) usage(ctx context.Context, own map[oci.DiffID]int64) ([]wire.CacheRecord, error) {
	list := []wire.CacheRecord{}
	counted := map[oci.DiffID]bool{}
	for _, r := range b.Cache.List() {
		used := r.LastUsed
		disk, alone := own[r.Layer]
		if !alone {
			disk = r.Size
		}
		list = append(list, wire.CacheRecord{
			ID: oci.DigestOf([]byte(r.Key)).Short(), Type: "regular", Description: r.Text, Shared: r.Layer != "" && (!alone || counted[r.Layer]),
			Size: disk, CreatedAt: r.Created, LastUsedAt: &used, UsageCount: r.Uses,
		})
		counted[r.Layer] = true
	}
	mounts, err := b.builder.CacheMounts(ctx)
	if err != nil {
		return nil, fmt.Errorf("measure build cache: %w", err)
	}
	for _, m := range mounts {
		list = append(list, wire.CacheRecord{
			ID: m.Name, Type: "exec.cachemount", Description: "cache mount " + m.ID, Size: m.Bytes, CreatedAt: m.LastUsed, LastUsedAt: &m.LastUsed,
		})
	}
	return list, nil
}

// layersInUse are those of images and of containers.
func (s *shared) layersInUse(ctx context.Context) (map[oci.DiffID]bool, error) {
	stacks, err := s.stacksInUse(ctx)
	if err != nil {
		return nil, err
	}
	all := map[oci.DiffID]bool{}
	for _, stack := range stacks {
		for _, l := range stack {
			all[l] = true
		}
	}
	return all, nil
}

// Prune forgets steps of the build cache and frees their layers. With all, also those that images have.
func (b *Builds) Prune(ctx context.Context, all bool, unusedFor time.Duration, keep int64) (wire.CachePruneReport, error) {
	inUse, err := b.layersInUse(ctx)
	if err != nil {
		return wire.CachePruneReport{}, err
	}
	records, err := b.builder.Prune(cache.PruneOptions{
		All: all, InUse: func(l oci.DiffID) bool { return inUse[l] }, UnusedFor: unusedFor, KeepBytes: keep,
	})
	if err != nil {
		return wire.CachePruneReport{}, err
	}
	freed, err := b.Collect(ctx)
	if err == nil {
		err = b.Layers.Wait(ctx)
	}
	if err != nil {
		return wire.CachePruneReport{}, err
	}
	var mounts []string
	if all {
		var bytes int64
		if mounts, bytes, err = b.pruneCacheMounts(ctx, unusedFor); err != nil {
			return wire.CachePruneReport{}, err
		}
		freed += bytes
	}
	report := wire.CachePruneReport{CachesDeleted: []string{}, SpaceReclaimed: uint64(freed)}
	for _, r := range records {
		report.CachesDeleted = append(report.CachesDeleted, oci.DigestOf([]byte(r.Key)).Short())
	}
	report.CachesDeleted = append(report.CachesDeleted, mounts...)
	b.bus.Publish(events.BuilderEventType, events.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(freed)})
	return report, nil
}

// pruneCacheMounts removes the cache mounts that no step uses, and returns their names and size.
func (b *Builds) pruneCacheMounts(ctx context.Context, unusedFor time.Duration) (names []string, bytes int64, err error) {
	mounts, err := b.builder.CacheMounts(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, m := range mounts {
		if b.Now().Sub(m.LastUsed) < unusedFor {
			continue
		}
		err := b.builder.RemoveCacheMount(ctx, m.Name)
		if errors.Is(err, errdefs.ErrConflict) {
			continue
		}
		if err != nil {
			return names, bytes, err
		}
		names, bytes = append(names, m.Name), bytes+m.Bytes
	}
	return names, bytes, nil
}

// cacheLayers are the layers that the build cache needs.
func (s *shared) cacheLayers() [][]oci.DiffID {
	var stacks [][]oci.DiffID
	for _, l := range s.Cache.Layers() {
		stacks = append(stacks, []oci.DiffID{l})
	}
	return stacks
}
