package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"davit/oci/errdefs"
	"davit/registry/storage"
)

// cellHead is the length of the random line; what is shorter has no value.
const cellHead = 27

// A cell that was removed, or whose object is being deleted, holds one of these and a random text, shorter
// than cellHead.
const (
	removed = "removed "
	buried  = "buried "
)

func marked(mark string) []byte { return []byte(mark + rand.Text()[:16]) }

// encode puts a random line before a value.
func encode(value []byte) []byte {
	return append([]byte(rand.Text()+"\n"), value...)
}

// read returns a cell; one that was removed is errdefs.ErrNotFound.
func (s *Store) read(ctx context.Context, key string) (storage.Record, error) {
	content, o, err := s.readObject(ctx, key)
	if errors.Is(err, errNoObject) || err == nil && len(content) < cellHead {
		return storage.Record{}, errdefs.NotFound("%s is unknown", key)
	}
	if err != nil {
		return storage.Record{}, fmt.Errorf("read %s: %w", key, err)
	}
	return storage.Record{Value: content[cellHead:], Version: storage.Version(o.tag), Put: o.changed}, nil
}

// put writes a cell, whatever it was.
func (s *Store) put(ctx context.Context, key string, value []byte) error {
	if _, err := s.putObject(ctx, key, encode(value), condition{}); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// swap writes a cell whose version is old, else errdefs.ErrConflict.
func (s *Store) swap(ctx context.Context, key string, old storage.Version, value []byte) (storage.Version, error) {
	content := encode(value)
	var version storage.Version
	var err error
	if old == storage.Absent {
		version, err = s.create(ctx, key, content)
	} else {
		version, err = s.replace(ctx, key, content, condition{tag: string(old)})
	}
	if err != nil {
		return "", fmt.Errorf("write %s: %w", key, err)
	}
	return version, nil
}

// replace writes under a condition. When the store says that it fails, the write may still have been
// done: by an attempt whose answer got lost.
func (s *Store) replace(ctx context.Context, key string, content []byte, c condition) (storage.Version, error) {
	tag, err := s.putObject(ctx, key, content, c)
	if !errors.Is(err, errCondition) {
		return storage.Version(tag), err
	}
	now, o, readErr := s.readObject(ctx, key)
	switch {
	case readErr == nil && len(now) > 0 && bytes.Equal(now, content):
		return storage.Version(o.tag), nil
	case readErr != nil && !errors.Is(readErr, errNoObject):
		return "", errors.Join(err, readErr)
	}
	return "", errdefs.Conflict("it was written by another request")
}

// create writes a cell that is not there, or was removed. One that is being buried it waits for.
func (s *Store) create(ctx context.Context, key string, content []byte) (version storage.Version, err error) {
	expect := condition{absent: true}
	for range 60 {
		version, err = s.replace(ctx, key, content, expect)
		if !errors.Is(err, errdefs.ErrConflict) {
			return version, err
		}
		now, o, readErr := s.readObject(ctx, key)
		switch {
		case errors.Is(readErr, errNoObject):
			expect = condition{absent: true}
		case readErr != nil:
			return "", readErr
		case len(now) >= cellHead:
			return "", err
		case !bytes.HasPrefix(now, []byte(buried)) || time.Since(o.changed) > mourning:
			expect = condition{tag: o.tag}
		default:
			expect = condition{absent: true}
			if err := pause(ctx, 50*time.Millisecond); err != nil {
				return "", err
			}
		}
	}
	return "", err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// remove empties a cell whose version is old, else errdefs.ErrConflict. The object stays until bury.
func (s *Store) remove(ctx context.Context, key string, old storage.Version) error {
	_, err := s.replace(ctx, key, marked(removed), condition{tag: string(old)})
	if errors.Is(err, errdefs.ErrConflict) {
		if _, err := s.read(ctx, key); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", key, err)
	}
	return nil
}

// burial is how long a request to delete an emptied cell's object is good for. Nobody waits longer than
// mourning for its end: that allows for clocks that are wrong by a quarter of an hour, the signer's and
// the writer's; the store refuses requests from worse ones.
const (
	burial   = 5 * time.Minute
	mourning = 40 * time.Minute
)

// bury deletes the object of an emptied cell. Deleting cannot be made conditional everywhere, and must
// not hit a cell that is written anew meanwhile. So the request is signed first, to be refused by the
// store itself when it comes later than burial; then the cell is marked, and who wants to write a marked
// one waits for its end.
func (s *Store) bury(ctx context.Context, key, tag string) error {
	request, err := s.s3.Presign(ctx, http.MethodDelete, s.bucket, s.prefix+key, burial, nil)
	if err != nil {
		return fmt.Errorf("bury %s: %w", key, err)
	}
	if _, err := s.putObject(ctx, key, marked(buried), condition{tag: tag}); err != nil {
		if errors.Is(err, errCondition) {
			return nil // in use again
		}
		return fmt.Errorf("bury %s: %w", key, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodDelete, request.String(), nil)
	if err != nil {
		return fmt.Errorf("bury %s: %w", key, err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("bury %s: %w", key, err)
	}
	_, err = io.Copy(io.Discard, response.Body)
	if err = errors.Join(err, response.Body.Close()); err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("the store answers %s", response.Status)
	}
	if err != nil {
		return fmt.Errorf("bury %s: %w", key, err)
	}
	return nil
}
