// Package storagetest is the conformance suite of registry/storage: what every implementation must pass.
// Run checks the contract in one process, RunShared between several; Work and Survived check, together, that what a successful call
// promised is there after the process was killed at any step.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// Run checks the contract. open returns a new and empty store each time.
func Run(t *testing.T, open func(t *testing.T) storage.Store) {
	for name, check := range map[string]func(*suite){
		"Blobs": (*suite).blobs, "Uploads": (*suite).uploads, "Records": (*suite).records,
		"Missing": (*suite).missing, "WrongDigest": (*suite).wrongDigest, "BrokenReader": (*suite).brokenReader,
		"ConcurrentAppends": (*suite).concurrentAppends, "ConcurrentCommits": (*suite).concurrentCommits,
		"ConcurrentRecords": (*suite).concurrentRecords, "Large": (*suite).large, "Expire": (*suite).expire,
		"Algorithms": (*suite).algorithms, "Swap": (*suite).swap, "Condemn": (*suite).condemn,
	} {
		t.Run(name, func(t *testing.T) { check(&suite{t, t.Context(), open(t)}) })
	}
}

type suite struct {
	*testing.T
	ctx   context.Context
	store storage.Store
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) wantClass(err, class error, what string) {
	s.Helper()
	if !errors.Is(err, class) {
		s.Errorf("%s: %v, want the class %v", what, err, class)
	}
}

func (s *suite) wantBlob(d oci.Digest, content []byte) {
	s.Helper()
	size, err := s.store.StatBlob(s.ctx, d)
	s.must(err)
	if size != int64(len(content)) {
		s.Errorf("blob %s has %d bytes, want %d", d, size, len(content))
	}
	got, err := readBlob(s.ctx, s.store, d)
	s.must(err)
	if !bytes.Equal(got, content) {
		s.Errorf("blob %s has other content than what was stored", d)
	}
}

func readBlob(ctx context.Context, store storage.Store, d oci.Digest) ([]byte, error) {
	blob, err := store.OpenBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(blob)
	return content, errors.Join(err, blob.Close())
}

func (s *suite) upload(algorithm string, chunks ...string) string {
	s.Helper()
	id, err := s.store.CreateUpload(s.ctx, algorithm)
	s.must(err)
	at := int64(0)
	for _, chunk := range chunks {
		end, err := s.store.AppendUpload(s.ctx, id, at, bytes.NewReader([]byte(chunk)))
		s.must(err)
		if end != at+int64(len(chunk)) {
			s.Fatalf("append at %d of %d bytes ends at %d", at, len(chunk), end)
		}
		at = end
	}
	return id
}

func (s *suite) blobs() {
	content := []byte("content")
	d := oci.DigestOf(content)
	s.must(s.store.PutBlob(s.ctx, d, content))
	s.must(s.store.PutBlob(s.ctx, d, content))
	s.wantBlob(d, content)
	reader, err := s.store.OpenBlob(s.ctx, d)
	s.must(err)
	s.must(s.store.DeleteBlob(s.ctx, d))
	got, err := io.ReadAll(reader)
	if err = errors.Join(err, reader.Close()); err != nil || !bytes.Equal(got, content) {
		s.Errorf("a reader of a deleted blob got %q, %v", got, err)
	}
	_, err = s.store.StatBlob(s.ctx, d)
	s.wantClass(err, errdefs.ErrNotFound, "stat of a deleted blob")
	before := time.Now().Add(-time.Minute)
	s.must(s.store.PutBlob(s.ctx, d, content))
	walked := 0
	s.must(s.store.WalkBlobs(s.ctx, func(got oci.Digest, size int64, stored time.Time) error {
		walked++
		if got != d || size != 7 || stored.Before(before) {
			s.Errorf("walk shows %s, %d bytes, %s", got, size, stored)
		}
		return nil
	}))
	if walked != 1 {
		s.Errorf("walk shows %d blobs, want 1", walked)
	}
}

func (s *suite) uploads() {
	id := s.upload("sha256", "one ", "", "two")
	_, err := s.store.AppendUpload(s.ctx, id, 3, bytes.NewReader([]byte("x")))
	s.wantClass(err, errdefs.ErrConflict, "append before the end")
	_, err = s.store.AppendUpload(s.ctx, id, 8, bytes.NewReader([]byte("x")))
	s.wantClass(err, errdefs.ErrConflict, "append past the end")
	d := oci.DigestOf([]byte("one two"))
	size, err := s.store.CommitUpload(s.ctx, id, d)
	s.must(err)
	if size != 7 {
		s.Errorf("commit returns size %d", size)
	}
	s.wantBlob(d, []byte("one two"))
	_, err = s.store.UploadOffset(s.ctx, id)
	s.wantClass(err, errdefs.ErrNotFound, "offset of a committed upload")
	empty := oci.DigestOf(nil)
	_, err = s.store.CommitUpload(s.ctx, s.upload("sha256"), empty)
	s.must(err)
	s.wantBlob(empty, nil)
	id = s.upload("sha256", "gone")
	s.must(s.store.CancelUpload(s.ctx, id))
	_, err = s.store.AppendUpload(s.ctx, id, 4, bytes.NewReader(nil))
	s.wantClass(err, errdefs.ErrNotFound, "append to a cancelled upload")
}

func (s *suite) records() {
	s.must(s.store.PutRecord(s.ctx, "a/b", []byte("1")))
	s.must(s.store.PutRecord(s.ctx, "a/b/c", []byte("2"))) // a key may be a prefix too
	s.must(s.store.PutRecord(s.ctx, "a/b", []byte("3")))
	s.must(s.store.PutRecord(s.ctx, "a/.x", nil))
	value, err := s.store.GetRecord(s.ctx, "a/b")
	s.must(err)
	if string(value) != "3" {
		s.Errorf("record a/b is %q", value)
	}
	for prefix, want := range map[string]string{"a": "[.x b]", "a/b": "[c]", "none": "[]", "": "[]"} {
		keys, err := s.store.ListRecords(s.ctx, prefix)
		s.must(err)
		if got := fmt.Sprint(keys); got != want {
			s.Errorf("records under %q: %s, want %s", prefix, got, want)
		}
	}
	put, err := s.store.RecordTime(s.ctx, "a/b")
	s.must(err)
	s.must(s.store.TouchRecord(s.ctx, "a/b"))
	touched, err := s.store.RecordTime(s.ctx, "a/b")
	s.must(err)
	if touched.Before(put) || time.Since(touched) > time.Minute {
		s.Errorf("put at %s, touched at %s", put, touched)
	}
	s.must(s.store.DeleteRecord(s.ctx, "a/b"))
	value, err = s.store.GetRecord(s.ctx, "a/b/c")
	if err != nil || string(value) != "2" {
		s.Errorf("after its prefix was deleted, record a/b/c is %q, %v", value, err)
	}
}

func (s *suite) missing() {
	d := oci.DigestOf([]byte("absent"))
	for what, call := range map[string]func() error{
		"StatBlob":     func() error { _, err := s.store.StatBlob(s.ctx, d); return err },
		"OpenBlob":     func() error { _, err := s.store.OpenBlob(s.ctx, d); return err },
		"DeleteBlob":   func() error { return s.store.DeleteBlob(s.ctx, d) },
		"UploadOffset": func() error { _, err := s.store.UploadOffset(s.ctx, "absent"); return err },
		"AppendUpload": func() error {
			_, err := s.store.AppendUpload(s.ctx, "absent", 0, bytes.NewReader(nil))
			return err
		},
		"CommitUpload": func() error { _, err := s.store.CommitUpload(s.ctx, "absent", d); return err },
		"CancelUpload": func() error { return s.store.CancelUpload(s.ctx, "absent") },
		"path trick":   func() error { return s.store.CancelUpload(s.ctx, "..") },
		"GetRecord":    func() error { _, err := s.store.GetRecord(s.ctx, "no/record"); return err },
		"DeleteRecord": func() error { return s.store.DeleteRecord(s.ctx, "no/record") },
		"RecordTime":   func() error { _, err := s.store.RecordTime(s.ctx, "no/record"); return err },
		"TouchRecord":  func() error { return s.store.TouchRecord(s.ctx, "no/record") },
		"ReadRecord":   func() error { _, err := s.store.ReadRecord(s.ctx, "no/record"); return err },
		"RemoveRecord": func() error { return s.store.RemoveRecord(s.ctx, "no/record", "v") },
		"CondemnBlob":  func() error { _, err := s.store.CondemnBlob(s.ctx, d); return err },
		"KeepBlob":     func() error { return s.store.KeepBlob(s.ctx, d) },
	} {
		s.wantClass(call(), errdefs.ErrNotFound, what)
	}
	s.must(s.store.PutRecord(s.ctx, "still/usable", nil))
}

func (s *suite) wrongDigest() {
	id := s.upload("sha256", "wrong")
	d := oci.DigestOf([]byte("right"))
	_, err := s.store.CommitUpload(s.ctx, id, d)
	s.wantClass(err, errdefs.ErrInvalid, "commit of a wrong digest")
	_, err = s.store.StatBlob(s.ctx, d)
	s.wantClass(err, errdefs.ErrNotFound, "stat after it")
	_, err = s.store.UploadOffset(s.ctx, id)
	s.wantClass(err, errdefs.ErrNotFound, "the upload after it")
}

var errVanished = errors.New("the client vanished")

// brokenReader: what arrived of a chunk that broke off stays, and the upload goes on from there.
func (s *suite) brokenReader() {
	id := s.upload("sha256", "one")
	r := io.MultiReader(bytes.NewReader([]byte("two")), failing{})
	end, err := s.store.AppendUpload(s.ctx, id, 3, r)
	s.wantClass(err, errVanished, "append from a broken reader")
	offset, err := s.store.UploadOffset(s.ctx, id)
	s.must(err)
	if end != 6 || offset != 6 {
		s.Fatalf("after 3+3 bytes append returned %d, the offset is %d", end, offset)
	}
	_, err = s.store.AppendUpload(s.ctx, id, 6, bytes.NewReader([]byte("three")))
	s.must(err)
	_, err = s.store.CommitUpload(s.ctx, id, oci.DigestOf([]byte("onetwothree")))
	s.must(err)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errVanished }

// concurrentAppends: of appends at the same offset one is taken, the others are conflicts, and the
// content is the winner's alone.
func (s *suite) concurrentAppends() {
	for range 20 {
		id := s.upload("sha256")
		var group sync.WaitGroup
		var winner atomic.Int64
		var won atomic.Int64
		for i := range 6 {
			group.Go(func() {
				chunk := bytes.Repeat([]byte{byte('a' + i)}, 300_000)
				_, err := s.store.AppendUpload(s.ctx, id, 0, bytes.NewReader(chunk))
				if err == nil {
					winner.Store(int64(i))
					won.Add(1)
				} else if !errors.Is(err, errdefs.ErrConflict) {
					s.Errorf("append beside others: %v", err)
				}
			})
		}
		group.Wait()
		if won.Load() != 1 {
			s.Fatalf("%d of 6 appends at the same offset succeeded", won.Load())
		}
		content := bytes.Repeat([]byte{byte('a' + winner.Load())}, 300_000)
		_, err := s.store.CommitUpload(s.ctx, id, oci.DigestOf(content))
		s.must(err)
		s.wantBlob(oci.DigestOf(content), content)
	}
}

// concurrentCommits: many clients push the same content at once.
func (s *suite) concurrentCommits() {
	content := bytes.Repeat([]byte("same"), 50_000)
	d := oci.DigestOf(content)
	var group sync.WaitGroup
	for range 8 {
		id := s.upload("sha256", string(content))
		group.Go(func() {
			if _, err := s.store.CommitUpload(s.ctx, id, d); err != nil {
				s.Errorf("commit beside others: %v", err)
			}
			if got, err := readBlob(s.ctx, s.store, d); err != nil || !bytes.Equal(got, content) {
				s.Errorf("read beside commits: %d bytes, %v", len(got), err)
			}
		})
	}
	group.Wait()
}

// concurrentRecords: a reader sees one writer's value or another's, whole.
func (s *suite) concurrentRecords() {
	s.must(s.store.PutRecord(s.ctx, "k/r", bytes.Repeat([]byte("0"), 5000)))
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for range 10 {
				if err := s.store.PutRecord(s.ctx, "k/r", bytes.Repeat([]byte{byte('0' + i)}, 5000)); err != nil {
					s.Error(err)
				}
				value, err := s.store.GetRecord(s.ctx, "k/r")
				if err != nil || len(value) != 5000 || len(bytes.Trim(value, string(value[:1]))) != 0 {
					s.Errorf("a reader sees a mixed value of %d bytes, %v", len(value), err)
				}
			}
		})
	}
	group.Wait()
	if keys, err := s.store.ListRecords(s.ctx, "k"); err != nil || len(keys) != 1 {
		s.Errorf("records after concurrent puts: %v, %v", keys, err)
	}
}

// large streams more than fits any buffer, and reads a range of it.
func (s *suite) large() {
	const size = 64 << 20
	id, err := s.store.CreateUpload(s.ctx, "sha256")
	s.must(err)
	h := oci.Digest("sha256:").Hash()
	end, err := s.store.AppendUpload(s.ctx, id, 0, io.TeeReader(io.LimitReader(&pattern{}, size), h))
	s.must(err)
	if end != size {
		s.Fatalf("end is %d", end)
	}
	d := oci.SumDigest("sha256", h)
	_, err = s.store.CommitUpload(s.ctx, id, d)
	s.must(err)
	blob, err := s.store.OpenBlob(s.ctx, d)
	s.must(err)
	_, err = blob.Seek(size-5, io.SeekStart)
	s.must(err)
	tail, err := io.ReadAll(blob)
	if err = errors.Join(err, blob.Close()); err != nil || len(tail) != 5 || tail[4] != byte((size-1)%251) {
		s.Errorf("the last bytes are %v, %v", tail, err)
	}
}

// pattern is an endless reader whose byte n is n modulo 251.
type pattern struct{ at int }

// Read implements io.Reader.
func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte((p.at + i) % 251)
	}
	p.at += len(b)
	return len(b), nil
}

func (s *suite) expire() {
	id := s.upload("sha256", "old")
	s.must(s.store.ExpireUploads(s.ctx, time.Now().Add(-time.Hour)))
	_, err := s.store.UploadOffset(s.ctx, id)
	s.must(err)
	s.must(s.store.ExpireUploads(s.ctx, time.Now().Add(time.Hour)))
	_, err = s.store.UploadOffset(s.ctx, id)
	s.wantClass(err, errdefs.ErrNotFound, "offset of an expired upload")
}

// algorithms: an upload begun for one algorithm may end as content named by the other.
func (s *suite) algorithms() {
	h := oci.Digest("sha512:").Hash()
	h.Write([]byte("long sum"))
	d := oci.SumDigest("sha512", h)
	for _, algorithm := range []string{"sha512", "sha256"} {
		_, err := s.store.CommitUpload(s.ctx, s.upload(algorithm, "long ", "sum"), d)
		s.must(err)
		s.wantBlob(d, []byte("long sum"))
		s.must(s.store.DeleteBlob(s.ctx, d))
	}
}
