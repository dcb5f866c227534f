package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"davit/oci"
)

// reader is content opened for reading: one request from where reading begins to the end.
type reader struct {
	ctx    context.Context
	s      *Store
	place  place
	at     int64 // where the next Read begins
	body   io.ReadCloser
	bodyAt int64 // where body goes on
}

// openReader begins at once, so that the bytes stay there for it though the object be deleted.
func (s *Store) openReader(ctx context.Context, p place) (*reader, error) {
	r := &reader{ctx: ctx, s: s, place: p}
	if p.Size == 0 {
		return r, nil
	}
	return r, r.request(0)
}

func (r *reader) request(from int64) error {
	o, err := r.s.getObject(r.ctx, r.place.Object, from)
	if err != nil {
		return err
	}
	r.body, r.bodyAt = o.body, from
	return nil
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if r.at >= r.place.Size {
		return 0, io.EOF
	}
	if r.body == nil || r.bodyAt != r.at {
		if err := r.Close(); err != nil {
			return 0, err
		}
		if err := r.request(r.at); err != nil {
			return 0, fmt.Errorf("read %s at %d: %w", r.place.Object, r.at, err)
		}
	}
	n, err := r.body.Read(p)
	r.at += int64(n)
	r.bodyAt = r.at
	if errors.Is(err, io.EOF) && r.at < r.place.Size {
		err = fmt.Errorf("read %s: it ends at %d of %d bytes: %w", r.place.Object, r.at, r.place.Size, io.ErrUnexpectedEOF)
	}
	return n, err
}

// Seek implements io.Seeker.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.place.Size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek to %d of %s", offset, r.place.Object)
	}
	r.at = offset
	return offset, nil
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	return body.Close()
}

// BlobURL implements storage.Addresses.
func (s *Store) BlobURL(ctx context.Context, d oci.Digest, valid time.Duration) (string, error) {
	p, _, err := s.place(ctx, d)
	if err != nil {
		return "", err
	}
	u, err := s.s3.PresignedGetObject(ctx, s.bucket, s.prefix+p.Object, valid, nil)
	if err != nil {
		return "", fmt.Errorf("sign the address of blob %s: %w", d, err)
	}
	return u.String(), nil
}
