package bucket

import (
	"bytes"
	"context"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/minio/minio-go/v7"

	"davit/oci/errdefs"
	"davit/registry/storage"
)

// appender is one AppendUpload. While a part is on its way to the store, the next fills the buffer: two
// buffers are all the memory that an append takes, whatever its length.
type appender struct {
	s       *Store
	ctx     context.Context // of the store's requests: a client that is gone does not end them
	id      string
	hash    hash.Hash
	offset  int64 // of all that was read
	buffer  []byte
	spare   []byte
	claimed bool

	// Only the sending goroutine has these while sent is not nil.
	state   upload
	version storage.Version
	sent    chan error
}

// AppendUpload implements storage.Uploads. Its cell is swapped after each part, so that of an append whose
// process is killed all but the last two parts is kept.
func (s *Store) AppendUpload(ctx context.Context, id string, at int64, r io.Reader) (int64, error) {
	state, version, err := s.upload(ctx, id)
	switch {
	case err != nil:
		return 0, err
	case state.Offset != at:
		return state.Offset, errdefs.Conflict("upload %s has %d bytes, a chunk at %d does not continue it", id, state.Offset, at)
	case state.Commit != "":
		return state.Offset, errdefs.Conflict("upload %s is being committed", id)
	}
	a := &appender{s: s, ctx: context.WithoutCancel(ctx), id: id, offset: at, state: state, version: version}
	if a.hash, err = state.hash(); err != nil {
		return at, err
	}
	if state.Tail.Object != "" {
		if a.buffer, _, err = s.readObject(ctx, state.Tail.Object); err != nil {
			return at, fmt.Errorf("append to upload: %w", err)
		}
	}
	readErr := a.copy(r)
	if err := a.finish(); err != nil {
		return a.state.Offset, fmt.Errorf("append to upload: %w", errors.Join(err, readErr))
	}
	if readErr != nil {
		return a.offset, fmt.Errorf("append to upload: %w", readErr)
	}
	return a.offset, nil
}

// copy reads to the end and sends what makes a whole part.
func (a *appender) copy(r io.Reader) error {
	for number := a.state.Next; ; {
		whole := sizeOfPart(number)
		for len(a.buffer) < whole {
			a.grow(whole)
			n, err := r.Read(a.buffer[len(a.buffer):min(cap(a.buffer), whole)])
			a.hash.Write(a.buffer[len(a.buffer) : len(a.buffer)+n])
			a.buffer = a.buffer[:len(a.buffer)+n]
			a.offset += int64(n)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		if err := a.send(); err != nil {
			return err
		}
		number++
	}
}

// grow makes room for reading: most uploads are far smaller than a part.
func (a *appender) grow(whole int) {
	if len(a.buffer) < cap(a.buffer) {
		return
	}
	larger := make([]byte, len(a.buffer), min(whole, max(64<<10, 2*cap(a.buffer))))
	copy(larger, a.buffer)
	a.buffer = larger
}

// send hands the full buffer over and takes the other.
func (a *appender) send() error {
	if err := a.wait(); err != nil {
		return err
	}
	sum, err := a.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return err
	}
	full, offset, sent := a.buffer, a.offset, make(chan error, 1)
	a.buffer, a.spare, a.sent = a.spare[:0], nil, sent
	go func() { sent <- a.part(full, sum, offset) }()
	a.spare = full
	return nil
}

// wait lets the part that is on its way arrive. After an error the append is over.
func (a *appender) wait() error {
	if a.sent == nil {
		return nil
	}
	err := <-a.sent
	a.sent = nil
	return err
}

// part writes one part and notes it, the first after taking the upload over.
func (a *appender) part(content, sum []byte, offset int64) error {
	ctx, cancel := context.WithTimeout(a.ctx, 5*time.Minute)
	defer cancel()
	if err := a.claim(ctx); err != nil {
		return err
	}
	written, err := a.s.putPart(ctx, a.id, a.state.Multipart, a.state.Next, content)
	if err != nil {
		return err
	}
	next := a.state
	next.Parts = append(next.Parts, written)
	next.Next++
	next.Tail, next.Hash, next.Offset = place{}, sum, offset
	return a.save(ctx, next)
}

func (a *appender) claim(ctx context.Context) (err error) {
	if a.claimed {
		return nil
	}
	next := a.state
	if next.Writing {
		next.Next++
	}
	next.Writing = true
	if next.Multipart == "" {
		next.Multipart, err = a.s.s3.NewMultipartUpload(ctx, a.s.bucket, a.s.prefix+assembled(a.id), minio.PutObjectOptions{})
		if err != nil {
			return classify(err)
		}
	}
	err = a.save(ctx, next)
	a.claimed = err == nil
	if errors.Is(err, errdefs.ErrConflict) && a.state.Multipart == "" {
		err = errors.Join(err, a.s.abort(ctx, a.id, next.Multipart))
	}
	return err
}

// save swaps the state, and drops a tail that the next one does not have any more.
func (a *appender) save(ctx context.Context, next upload) error {
	version, err := a.s.swapUpload(ctx, a.id, a.version, next)
	if err != nil {
		return err
	}
	old := a.state.Tail.Object
	a.state, a.version = next, version
	if old == "" || old == next.Tail.Object {
		return nil
	}
	return a.s.deleteObject(ctx, old)
}

// finish keeps what makes no part as the tail.
func (a *appender) finish() error {
	if err := a.wait(); err != nil {
		return err
	}
	if a.offset == a.state.Offset && !a.claimed {
		return nil
	}
	ctx, cancel := context.WithTimeout(a.ctx, time.Minute)
	defer cancel()
	sum, err := a.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return err
	}
	next := a.state
	next.Tail, next.Writing = place{}, false
	next.Hash, next.Offset = sum, a.offset
	if len(a.buffer) > 0 {
		next.Tail = place{newData(), int64(len(a.buffer))}
		if _, err := a.s.putObject(ctx, next.Tail.Object, a.buffer, condition{}); err != nil {
			return err
		}
	}
	err = a.save(ctx, next)
	if errors.Is(err, errdefs.ErrConflict) && next.Tail.Object != "" {
		err = errors.Join(err, a.s.deleteObject(ctx, next.Tail.Object))
	}
	return err
}

func (s *Store) putPart(ctx context.Context, id, multipart string, number int, content []byte) (part, error) {
	written, err := s.s3.PutObjectPart(ctx, s.bucket, s.prefix+assembled(id), multipart, number, bytes.NewReader(content), int64(len(content)), minio.PutObjectPartOptions{})
	return part{number, written.ETag}, classify(err)
}
