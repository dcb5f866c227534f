package bucket

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

// What a request found, whatever the store's own words for it are.
var (
	errNoObject  = errors.New("no such object")
	errCondition = errors.New("the object is not in the expected state")
)

// condition is what a write expects of the object that is there; the zero value is anything.
type condition struct {
	absent bool
	tag    string // entity tag
}

// classify gives a missing object and a failed condition their class.
func classify(err error) error {
	if err == nil {
		return nil
	}
	answer := minio.ToErrorResponse(err)
	switch {
	case answer.Code == "NoSuchBucket":
	case answer.StatusCode == http.StatusNotFound || answer.Code == "NoSuchKey" || answer.Code == "NoSuchUpload":
		return fmt.Errorf("%w: %w", errNoObject, err)
	case answer.StatusCode == http.StatusPreconditionFailed || answer.Code == "PreconditionFailed" || answer.Code == "ConditionalRequestConflict":
		return fmt.Errorf("%w: %w", errCondition, err)
	}
	return err
}

// putObject writes a small object and returns its entity tag.
func (s *Store) putObject(ctx context.Context, key string, content []byte, c condition) (string, error) {
	var o minio.PutObjectOptions
	if c.absent {
		o.SetMatchETagExcept("*")
	}
	if c.tag != "" {
		o.SetMatchETag(c.tag)
	}
	sum := sha256.Sum256(content)
	info, err := s.s3.PutObject(ctx, s.bucket, s.prefix+key, bytes.NewReader(content), int64(len(content)), "", hex.EncodeToString(sum[:]), o)
	if err = classify(err); c.tag != "" && errors.Is(err, errNoObject) {
		err = fmt.Errorf("%w: %w", errCondition, err)
	}
	return info.ETag, err
}

// object is what a read found.
type object struct {
	body    io.ReadCloser
	size    int64 // of all of it
	tag     string
	changed time.Time
}

// getObject opens an object at an offset.
func (s *Store) getObject(ctx context.Context, key string, from int64) (object, error) {
	var o minio.GetObjectOptions
	if from > 0 {
		if err := o.SetRange(from, 0); err != nil {
			return object{}, err
		}
	}
	body, info, _, err := s.s3.GetObject(ctx, s.bucket, s.prefix+key, o)
	if err != nil {
		return object{}, classify(err)
	}
	return object{body, info.Size, info.ETag, info.LastModified}, nil
}

// readObject reads a small object.
func (s *Store) readObject(ctx context.Context, key string) ([]byte, object, error) {
	o, err := s.getObject(ctx, key, 0)
	if err != nil {
		return nil, o, err
	}
	content, err := io.ReadAll(o.body)
	return content, o, errors.Join(err, o.body.Close())
}

func (s *Store) statObject(ctx context.Context, key string) (minio.ObjectInfo, error) {
	info, err := s.s3.StatObject(ctx, s.bucket, s.prefix+key, minio.StatObjectOptions{})
	return info, classify(err)
}

// deleteObject removes an object if it is there.
func (s *Store) deleteObject(ctx context.Context, key string) error {
	err := classify(s.s3.RemoveObject(ctx, s.bucket, s.prefix+key, minio.RemoveObjectOptions{}))
	if errors.Is(err, errNoObject) {
		return nil
	}
	return err
}

// listed is an object as a list shows it, its key without the store's prefix.
type listed struct {
	key, tag string
	size     int64
	changed  time.Time
}

// list calls f for the objects under a prefix; those with another "/" behind it only when deep.
func (s *Store) list(ctx context.Context, prefix string, deep bool, f func(listed) error) error {
	o := minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: deep}
	for info := range s.s3.ListObjectsIter(ctx, s.bucket, o) {
		if info.Err != nil {
			return classify(info.Err)
		}
		if strings.HasSuffix(info.Key, "/") {
			continue
		}
		tag := strings.Trim(info.ETag, `"`)
		if err := f(listed{strings.TrimPrefix(info.Key, s.prefix), tag, info.Size, info.LastModified}); err != nil {
			return err
		}
	}
	return ctx.Err()
}
