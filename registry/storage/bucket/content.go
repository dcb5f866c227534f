package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// place is where content lies.
type place struct {
	Object string `json:"object"` // key of the bytes
	Size   int64  `json:"size"`
}

// content is the value of a content cell. Condemned content may be removed by whoever swaps the cell, as
// it was condemned, for a dead one; a dead cell's object is about to be deleted, and nobody reads it.
type content struct {
	place
	Stored    time.Time `json:"stored"`
	Condemned bool      `json:"condemned,omitempty"`
	Dead      bool      `json:"dead,omitempty"`
}

func contentKey(d oci.Digest) string { return "content/" + d.Algorithm() + "-" + d.Hex() }

func newData() string { return "data/" + rand.Text() }

// content reads a cell, dead or not.
func (s *Store) content(ctx context.Context, d oci.Digest) (c content, version storage.Version, err error) {
	record, err := s.read(ctx, contentKey(d))
	if errors.Is(err, errdefs.ErrNotFound) {
		err = errdefs.NotFound("blob %s is unknown", d)
	}
	if err == nil {
		err = json.Unmarshal(record.Value, &c)
	}
	if err != nil {
		s.forget(d)
		return c, storage.Absent, err
	}
	return c, record.Version, nil
}

// alive is content that is not dead.
func (s *Store) alive(ctx context.Context, d oci.Digest) (c content, version storage.Version, err error) {
	c, version, err = s.content(ctx, d)
	if err == nil && c.Dead {
		s.forget(d)
		return c, version, errdefs.NotFound("blob %s is unknown", d)
	}
	if err == nil {
		s.remember(d, c.place)
	}
	return c, version, err
}

func (s *Store) swapContent(ctx context.Context, d oci.Digest, old storage.Version, c content) (storage.Version, error) {
	value, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	return s.swap(ctx, contentKey(d), old, value)
}

// remembered is how many places of content a process keeps in memory.
const remembered = 20_000

func (s *Store) remember(d oci.Digest, p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.places) >= remembered {
		clear(s.places)
	}
	s.places[d] = p
}

func (s *Store) forget(d oci.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.places, d)
}

// place says where content lies, from memory if it can: an object that is gone tells.
func (s *Store) place(ctx context.Context, d oci.Digest) (p place, known bool, err error) {
	s.mu.Lock()
	p, known = s.places[d]
	s.mu.Unlock()
	if known {
		return p, true, nil
	}
	c, _, err := s.alive(ctx, d)
	return c.place, false, err
}

// StatBlob implements storage.Blobs.
func (s *Store) StatBlob(ctx context.Context, d oci.Digest) (int64, error) {
	c, _, err := s.alive(ctx, d)
	return c.Size, err
}

// OpenBlob implements storage.Blobs.
func (s *Store) OpenBlob(ctx context.Context, d oci.Digest) (storage.Blob, error) {
	for {
		p, known, err := s.place(ctx, d)
		if err != nil {
			return nil, err
		}
		b, err := s.openReader(ctx, p)
		if err == nil || !errors.Is(err, errNoObject) {
			return b, err
		}
		if s.forget(d); !known {
			return nil, errdefs.NotFound("blob %s is unknown: its object %s is not there", d, p.Object)
		}
	}
}

// PutBlob implements storage.Blobs.
func (s *Store) PutBlob(ctx context.Context, d oci.Digest, value []byte) error {
	has, err := s.renew(ctx, d)
	if has || err != nil {
		return err
	}
	key := newData()
	sum := sha256.Sum256(value)
	_, err = s.s3.PutObject(ctx, s.bucket, s.prefix+key, bytes.NewReader(value), int64(len(value)), "", hex.EncodeToString(sum[:]), minio.PutObjectOptions{})
	if err == nil {
		err = s.publish(ctx, d, place{key, int64(len(value))})
	}
	if err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	return nil
}

// renew makes content that is there as young as if it had just come, and revokes what was announced of
// it. Content whose object is lost counts as not there, so that pushing it again heals.
func (s *Store) renew(ctx context.Context, d oci.Digest) (bool, error) {
	for {
		c, version, err := s.alive(ctx, d)
		if errors.Is(err, errdefs.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		info, err := s.statObject(ctx, c.Object)
		if errors.Is(err, errNoObject) || err == nil && info.Size != c.Size {
			return false, nil
		}
		if err == nil {
			c.Stored, c.Condemned = time.Now().UTC(), false
			_, err = s.swapContent(ctx, d, version, c)
		}
		if !errors.Is(err, errdefs.ErrConflict) {
			return err == nil, err
		}
	}
}

// publish makes verified bytes the content d, or drops them when d is there already. Publishing the same
// object twice is publishing it once.
func (s *Store) publish(ctx context.Context, d oci.Digest, p place) error {
	for {
		has, err := s.renew(ctx, d)
		if err != nil {
			return err
		}
		was, version, err := s.content(ctx, d)
		switch {
		case err == nil && has && was.Object != p.Object:
			return s.deleteObject(ctx, p.Object)
		case err == nil && has:
			return nil
		case err != nil && !errors.Is(err, errdefs.ErrNotFound):
			return err
		case was.Object == p.Object && was.Dead:
			return errdefs.NotFound("blob %s was removed meanwhile", d)
		}
		_, err = s.swapContent(ctx, d, version, content{place: p, Stored: time.Now().UTC()})
		if errors.Is(err, errdefs.ErrConflict) {
			continue
		}
		if err == nil && was.Object != "" && was.Object != p.Object {
			err = s.deleteObject(ctx, was.Object)
		}
		return err
	}
}

// CondemnBlob implements storage.Blobs.
func (s *Store) CondemnBlob(ctx context.Context, d oci.Digest) (storage.Version, error) {
	for {
		c, version, err := s.alive(ctx, d)
		if err != nil || c.Condemned {
			return version, err
		}
		c.Condemned = true
		version, err = s.swapContent(ctx, d, version, c)
		if !errors.Is(err, errdefs.ErrConflict) {
			return version, err
		}
	}
}

// KeepBlob implements storage.Blobs.
func (s *Store) KeepBlob(ctx context.Context, d oci.Digest) error {
	for {
		c, version, err := s.alive(ctx, d)
		if err != nil || !c.Condemned {
			return err
		}
		c.Condemned = false
		if _, err = s.swapContent(ctx, d, version, c); !errors.Is(err, errdefs.ErrConflict) {
			return err
		}
	}
}

// RemoveBlob implements storage.Blobs.
func (s *Store) RemoveBlob(ctx context.Context, d oci.Digest, condemned storage.Version) error {
	c, version, err := s.content(ctx, d)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return errdefs.Conflict("blob %s is gone", d)
	case err != nil:
		return err
	case version != condemned || c.Dead:
		return errdefs.Conflict("blob %s is wanted again", d)
	}
	return s.kill(ctx, d, condemned, c)
}

// DeleteBlob implements storage.Blobs.
func (s *Store) DeleteBlob(ctx context.Context, d oci.Digest) error {
	for {
		c, version, err := s.alive(ctx, d)
		if err != nil {
			return err
		}
		if err := s.kill(ctx, d, version, c); !errors.Is(err, errdefs.ErrConflict) {
			return err
		}
	}
}

// kill removes content whose cell has the version. Whoever finds it half done finishes it.
func (s *Store) kill(ctx context.Context, d oci.Digest, version storage.Version, c content) error {
	s.forget(d)
	c.Dead = true
	version, err := s.swapContent(ctx, d, version, c)
	if err != nil {
		return err
	}
	return s.finishKill(ctx, d, version, c)
}

func (s *Store) finishKill(ctx context.Context, d oci.Digest, dead storage.Version, c content) error {
	if err := s.deleteObject(ctx, c.Object); err != nil {
		return fmt.Errorf("delete blob %s: %w", d, err)
	}
	err := s.remove(ctx, contentKey(d), dead)
	if errors.Is(err, errdefs.ErrConflict) || errors.Is(err, errdefs.ErrNotFound) {
		return nil // somebody has stored the content again, or finished
	}
	return err
}

// digestOf reads a content key, empty when it is none.
func digestOf(key string) oci.Digest {
	d, err := oci.ParseDigest(strings.Replace(strings.TrimPrefix(key, "content/"), "-", ":", 1))
	if err != nil {
		return ""
	}
	return d
}
