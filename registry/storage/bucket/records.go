package bucket

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit/oci/errdefs"
	"davit/registry/storage"
)

// recordKey marks the last element with "=": some stores cannot have both "a" and "a/b".
func recordKey(key string) string {
	i := strings.LastIndexByte(key, '/') + 1
	return "records/" + key[:i] + "=" + key[i:]
}

// GetRecord implements storage.Records.
func (s *Store) GetRecord(ctx context.Context, key string) ([]byte, error) {
	record, err := s.ReadRecord(ctx, key)
	return record.Value, err
}

// ReadRecord implements storage.Records.
func (s *Store) ReadRecord(ctx context.Context, key string) (storage.Record, error) {
	record, err := s.read(ctx, recordKey(key))
	return record, recordUnknown(err, key)
}

func recordUnknown(err error, key string) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return errdefs.NotFound("record %s is unknown", key)
	}
	return err
}

// PutRecord implements storage.Records.
func (s *Store) PutRecord(ctx context.Context, key string, value []byte) error {
	return s.put(ctx, recordKey(key), value)
}

// SwapRecord implements storage.Records.
func (s *Store) SwapRecord(ctx context.Context, key string, old storage.Version, value []byte) (storage.Version, error) {
	return s.swap(ctx, recordKey(key), old, value)
}

// DeleteRecord implements storage.Records.
func (s *Store) DeleteRecord(ctx context.Context, key string) error {
	for {
		record, err := s.ReadRecord(ctx, key)
		if err == nil {
			err = s.RemoveRecord(ctx, key, record.Version)
		}
		if !errors.Is(err, errdefs.ErrConflict) {
			return err
		}
	}
}

// RemoveRecord implements storage.Records.
func (s *Store) RemoveRecord(ctx context.Context, key string, old storage.Version) error {
	return recordUnknown(s.remove(ctx, recordKey(key), old), key)
}

// ListRecords implements storage.Records.
func (s *Store) ListRecords(ctx context.Context, prefix string) ([]string, error) {
	if prefix != "" {
		prefix += "/"
	}
	prefix = "records/" + prefix + "="
	keys := []string{}
	err := s.list(ctx, prefix, false, func(o listed) error {
		if o.size >= cellHead {
			keys = append(keys, strings.TrimPrefix(o.key, prefix))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list records %s: %w", prefix, err)
	}
	slices.Sort(keys)
	return keys, nil
}

// RecordTime implements storage.Records.
func (s *Store) RecordTime(ctx context.Context, key string) (time.Time, error) {
	info, err := s.statObject(ctx, recordKey(key))
	if errors.Is(err, errNoObject) || err == nil && info.Size < cellHead {
		return time.Time{}, errdefs.NotFound("record %s is unknown", key)
	}
	return info.LastModified, err
}

// TouchRecord implements storage.Records.
func (s *Store) TouchRecord(ctx context.Context, key string) error {
	for {
		record, err := s.ReadRecord(ctx, key)
		if err == nil {
			_, err = s.SwapRecord(ctx, key, record.Version, record.Value)
		}
		if !errors.Is(err, errdefs.ErrConflict) {
			return err
		}
	}
}
