package server

import (
	"context"
	"errors"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/cache"
	"davit/registry/storage"
)

// shelf is the registry as package cache sees it.
type shelf struct {
	s *Server
	// beside, when not nil, has the uploads; the registry's store has none of them.
	beside storage.Store
}

var _ cache.Shelf = shelf{}

// ReadManifest implements cache.Manifests.
func (f shelf) ReadManifest(ctx context.Context, name string, d oci.Digest) ([]byte, error) {
	repo := f.s.repository(name)
	if err := repo.use(ctx, repo.manifestKey(d)); err != nil {
		return nil, err
	}
	return f.s.manifestContent(ctx, d)
}

// KeepManifest implements cache.Manifests.
func (f shelf) KeepManifest(ctx context.Context, name string, desc oci.Descriptor, content []byte) error {
	doc, e, err := checkManifest(content, desc.MediaType)
	if err != nil {
		return errdefs.As(errdefs.ErrInvalid, err)
	}
	return f.s.storeManifest(ctx, f.s.repository(name), desc.Digest, content, doc, e)
}

// ReadTag implements cache.Tags: the record's time is that of the last check.
func (f shelf) ReadTag(ctx context.Context, name, tag string) (d oci.Digest, checked time.Time, err error) {
	repo := f.s.repository(name)
	if d, err = repo.tag(ctx, tag); err == nil {
		checked, err = f.s.store.RecordTime(ctx, repo.tagKey(tag))
	}
	return d, checked, err
}

// KeepTag implements cache.Tags.
func (f shelf) KeepTag(ctx context.Context, name, tag string, d oci.Digest, by string) error {
	repo := f.s.repository(name)
	now, err := repo.tag(ctx, tag)
	if err == nil && now == d {
		return f.s.store.TouchRecord(ctx, repo.tagKey(tag))
	}
	if ignoreMissing(err) != nil || err != nil && d == "" {
		return ignoreMissing(err)
	}
	err = f.s.moveTag(ctx, repo, tag, d, by, func(oci.Digest) (bool, error) { return true, nil })
	if d == "" {
		return ignoreMissing(err)
	}
	return err
}

// HasBlob implements cache.Blobs.
func (f shelf) HasBlob(ctx context.Context, name string, d oci.Digest) (int64, error) {
	return f.s.repository(name).hasBlob(ctx, d)
}

// AdoptBlob implements cache.Blobs.
func (f shelf) AdoptBlob(ctx context.Context, name string, d oci.Digest) error {
	if _, err := f.s.store.StatBlob(ctx, d); err != nil {
		return err
	}
	return f.s.repository(name).linkBlob(ctx, d)
}

// KeepBlob implements cache.Blobs. The link comes first, so that an eviction which has just condemned the
// content of an earlier copy finds it, or is revoked.
func (f shelf) KeepBlob(ctx context.Context, name, upload string, d oci.Digest) (err error) {
	if f.beside != nil {
		if upload, err = f.carry(ctx, upload, d); err != nil {
			return err
		}
	}
	repo := f.s.repository(name)
	if err := repo.register(ctx); err != nil {
		return err
	}
	if err := f.s.store.PutRecord(ctx, repo.blobKey(d), nil); err != nil {
		return err
	}
	size, err := f.s.store.CommitUpload(ctx, upload, d)
	if err != nil {
		return errors.Join(err, ignoreMissing(f.s.store.DeleteRecord(ctx, repo.blobKey(d))))
	}
	f.s.eviction.stored(size)
	// It may be evicted by now, which is no reason to doubt the bytes that readers have.
	return ignoreMissing(f.s.store.KeepBlob(ctx, d))
}

// carry verifies an upload that is beside the registry's store, and makes an upload of the store from it.
func (f shelf) carry(ctx context.Context, upload string, d oci.Digest) (id string, err error) {
	if _, err := f.beside.CommitUpload(ctx, upload, d); err != nil {
		return "", err
	}
	blob, err := f.beside.OpenBlob(ctx, d)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, blob.Close(), f.beside.DeleteBlob(ctx, d)) }()
	if id, err = f.s.store.CreateUpload(ctx, d.Algorithm()); err != nil {
		return "", err
	}
	_, err = f.s.store.AppendUpload(ctx, id, 0, blob)
	return id, err
}
