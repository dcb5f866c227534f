package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// BlobSize returns a blob's size in bytes, without fetching it.
func (c *Cache) BlobSize(ctx context.Context, t Target, d oci.Digest) (int64, error) {
	key := t.Name + "@" + string(d)
	if size, ok := c.sizes.get(key); ok {
		return size, nil
	}
	if err, ok := c.missing.get(key); ok {
		return 0, err
	}
	var size int64
	err := c.ask(ctx, t, false, func(ctx context.Context, repo repository) (err error) {
		size, err = repo.BlobSize(ctx, d)
		return err
	})
	c.noteRefusal(key, err)
	if err == nil {
		c.sizes.put(key, size, sizeFor)
	}
	return size, err
}

// Blob fetches a blob that the shelf does not hold, or joins the fetch that is under way, and returns its
// bytes as they arrive once the upstream began to send them. A nil Stream: the shelf holds it by now.
func (c *Cache) Blob(ctx context.Context, t Target, d oci.Digest) (*Stream, error) {
	f, err := c.join(t, d)
	if err != nil {
		return nil, err
	}
	select {
	case <-f.opened:
	case <-f.done:
		return nil, f.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	file, err := c.o.Store.OpenUpload(ctx, f.upload)
	if errors.Is(err, errdefs.ErrNotFound) { // it became a blob just now, or failed
		select {
		case <-f.done:
			return nil, f.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	return &Stream{Size: f.size, ctx: ctx, flight: f, file: file}, nil
}

// flight is one fetch of one blob.
type flight struct {
	target Target
	digest oci.Digest

	opened chan struct{} // closed when upload and size are known and the upstream sends
	upload string
	size   int64

	done chan struct{} // closed at the end, when err is known
	err  error

	mu      sync.Mutex
	have    int64         // bytes that can be read from the upload
	changed chan struct{} // closed when have grows
}

// join returns the flight for a blob, and begins it if there is none.
func (c *Cache) join(t Target, d oci.Digest) (*flight, error) {
	key := t.Name + "@" + string(d)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return nil, errdefs.Unavailable("the registry is shutting down")
	}
	if f, ok := c.flights[key]; ok {
		c.Counters.Joined.Add(1)
		return f, nil
	}
	f := &flight{target: t, digest: d, opened: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{})}
	c.flights[key] = f
	c.flying.Go(func() {
		f.err = c.fly(f)
		c.mu.Lock()
		delete(c.flights, key)
		c.mu.Unlock()
		close(f.done)
	})
	return f, nil
}

// fly brings a blob to the shelf.
func (c *Cache) fly(f *flight) error {
	ctx, t := c.ctx, f.target
	// An earlier flight may have landed between its reader's look at the shelf and this one's start.
	if _, err := c.o.Shelf.HasBlob(ctx, t.Name, f.digest); !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	size, err := c.BlobSize(ctx, t, f.digest) // which also says that the upstream's repository has it
	if err != nil {
		return err
	}
	c.Counters.Misses.Add(1)
	if err := c.o.Shelf.AdoptBlob(ctx, t.Name, f.digest); !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	f.size = size
	err = c.fetch(ctx, f)
	if err != nil && ctx.Err() == nil {
		c.o.Log.Warn("fetch of a blob failed", "upstream", t.up.Name, "repository", t.Name, "digest", f.digest, "error", err)
	}
	return err
}

// fetch downloads into an upload, from where an earlier fetch ended, and makes it a blob.
func (c *Cache) fetch(ctx context.Context, f *flight) error {
	if err := f.target.up.resting(time.Now(), false); err != nil {
		return err
	}
	repo, err := f.target.up.repository(f.target.path, false)
	if err != nil {
		return err
	}
	at, err := c.begin(ctx, f)
	if err != nil {
		return fmt.Errorf("begin fetch of blob %s: %w", f.digest, err)
	}
	body, err := repo.Fetch(ctx, oci.Descriptor{MediaType: oci.MediaTypeLayer, Digest: f.digest, Size: f.size}, at)
	if err != nil {
		return c.landed(f, err)
	}
	f.arrived(at)
	close(f.opened)
	end, err := c.o.Store.AppendUpload(ctx, f.upload, at, &arriving{body, f, at})
	err = errors.Join(err, body.Close())
	c.Counters.Fetched.Add(end - at)
	if err != nil {
		return c.landed(f, err)
	}
	f.arrived(end)
	err = c.o.Shelf.KeepBlob(ctx, f.target.Name, f.upload, f.digest)
	if errors.Is(err, errdefs.ErrInvalid) {
		c.Counters.Wrong.Add(1)
		err = errdefs.New(errdefs.ErrDataLoss, "upstream %s sent other bytes than those of %s: %w", f.target.up.Name, f.digest, err)
	}
	return errors.Join(c.landed(f, err), c.forgetPartial(f))
}

// landed tells the upstream's record how a fetch ended; the end of the process is not its fault.
func (c *Cache) landed(f *flight, err error) error {
	if c.ctx.Err() == nil {
		f.target.up.learn(time.Now(), err)
	}
	if gone(err) { // though a manifest speaks of it
		c.noteRefusal(f.target.Name+"@"+string(f.digest), err)
		c.sizes.forget(f.target.Name + "@" + string(f.digest))
	}
	return err
}

// The record of an unfinished fetch names its upload.
func partialKey(f *flight) string {
	return "cache/partial/" + strings.ReplaceAll(f.target.Name, "/", "!") + "/" + strings.Replace(string(f.digest), ":", "-", 1)
}

// begin finds the upload that an earlier fetch left, or makes one, and returns how many bytes it has.
func (c *Cache) begin(ctx context.Context, f *flight) (at int64, err error) {
	if id, err := c.o.Store.GetRecord(ctx, partialKey(f)); err == nil {
		if at, err := c.o.Store.UploadOffset(ctx, string(id)); err == nil && at <= f.size {
			f.upload = string(id)
			if at > 0 {
				c.Counters.Resumed.Add(1)
			}
			return at, nil
		}
	}
	if f.upload, err = c.o.Store.CreateUpload(ctx, f.digest.Algorithm()); err != nil {
		return 0, err
	}
	return 0, c.o.Store.PutRecord(ctx, partialKey(f), []byte(f.upload))
}

func (c *Cache) forgetPartial(f *flight) error {
	err := c.o.Store.DeleteRecord(context.WithoutCancel(c.ctx), partialKey(f))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// arriving tells readers of what was read before, which the store has written by the time it reads again.
type arriving struct {
	r  io.Reader
	f  *flight
	at int64
}

// Read implements io.Reader.
func (a *arriving) Read(p []byte) (int, error) {
	a.f.arrived(a.at)
	n, err := a.r.Read(p)
	a.at += int64(n)
	return n, err
}

func (f *flight) arrived(end int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if end > f.have {
		f.have = end
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// readable returns how far the bytes may be read, and what to wait for when that is not enough. The last
// byte is not given away before all were verified.
func (f *flight) readable() (end int64, more <-chan struct{}) {
	select {
	case <-f.done:
		if f.err == nil {
			return f.size, nil
		}
	default:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return min(f.have, f.size-1), f.changed
}

// Stream reads a blob that is being fetched, from its first byte or from where Skip put it.
type Stream struct {
	Size   int64
	ctx    context.Context
	flight *flight
	file   storage.Tail
	at     int64
}

// Skip makes the next Read begin at a byte of the blob.
func (s *Stream) Skip(to int64) { s.at = to }

// Behind says whether there are bytes that Read would not have to wait for.
func (s *Stream) Behind() bool {
	end, _ := s.flight.readable()
	return s.at < end
}

// Wait returns when the fetch has ended; without an error the shelf has the blob.
func (s *Stream) Wait() error {
	select {
	case <-s.flight.done:
		return s.flight.err
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// Read implements io.Reader. It fails when the fetch does.
func (s *Stream) Read(p []byte) (int, error) {
	for {
		end, more := s.flight.readable()
		if s.at < end {
			n, err := s.file.ReadAt(p[:min(int64(len(p)), end-s.at)], s.at)
			s.at += int64(n)
			if n > 0 {
				err = nil
			}
			return n, err
		}
		if more == nil {
			return 0, io.EOF
		}
		select {
		case <-more:
		case <-s.flight.done:
			if s.flight.err != nil {
				return 0, s.flight.err
			}
		case <-s.ctx.Done():
			return 0, context.Cause(s.ctx)
		}
	}
}

// Close ends the reading, not the fetch.
func (s *Stream) Close() error { return s.file.Close() }
