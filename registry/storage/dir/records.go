package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"davit/oci/errdefs"
	"davit/registry/storage"
)

// recordPath marks the file with "=", so that "a" may be a record and a prefix of others at once.
func (s *Store) recordPath(key string) string {
	parent, last := filepath.Split(key)
	return filepath.Join(s.root, "records", parent, "="+last)
}

func version(modified time.Time) storage.Version {
	return storage.Version(strconv.FormatInt(modified.UnixNano(), 36))
}

// modified returns a record's time of modification, zero when there is no record.
func modified(path string) (time.Time, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// GetRecord implements storage.Records.
func (s *Store) GetRecord(_ context.Context, key string) ([]byte, error) {
	value, err := os.ReadFile(s.recordPath(key))
	return value, notFound(err, "record %s is unknown", key)
}

// ReadRecord implements storage.Records.
func (s *Store) ReadRecord(_ context.Context, key string) (record storage.Record, err error) {
	file, err := os.Open(s.recordPath(key))
	if err != nil {
		return record, notFound(err, "record %s is unknown", key)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return record, fmt.Errorf("read record %s: %w", key, err)
	}
	record = storage.Record{Value: make([]byte, info.Size()), Version: version(info.ModTime()), Put: info.ModTime()}
	if _, err := file.ReadAt(record.Value, 0); err != nil {
		return record, fmt.Errorf("read record %s: %w", key, err)
	}
	return record, nil
}

// PutRecord implements storage.Records.
func (s *Store) PutRecord(_ context.Context, key string, value []byte) error {
	_, err := s.put(key, value, func(time.Time) error { return nil })
	return err
}

// SwapRecord implements storage.Records.
func (s *Store) SwapRecord(_ context.Context, key string, old storage.Version, value []byte) (storage.Version, error) {
	return s.put(key, value, func(now time.Time) error {
		if now.IsZero() && old == storage.Absent || !now.IsZero() && version(now) == old {
			return nil
		}
		return errdefs.Conflict("record %s was written by another request", key)
	})
}

// put writes a record if the check of the present one's time lets it.
func (s *Store) put(key string, value []byte, check func(now time.Time) error) (next storage.Version, err error) {
	path := s.recordPath(key)
	temp, err := s.writeBeside(value)
	if err != nil {
		return "", fmt.Errorf("put record %s: %w", key, err)
	}
	err = s.locked(path, func() error {
		now, err := modified(path)
		if err == nil {
			err = check(now)
		}
		if err == nil {
			next, err = stamp(temp, now)
		}
		if err == nil {
			err = s.rename(temp, path)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("put record %s: %w", key, errors.Join(err, os.Remove(temp)))
	}
	return next, syncDir(filepath.Dir(path))
}

// stamp gives a file the present time, or one later than that of the file it follows.
func stamp(path string, follows time.Time) (storage.Version, error) {
	now := time.Now()
	if !now.After(follows) {
		now = follows.Add(1)
	}
	return version(now), os.Chtimes(path, now, now)
}

// rename makes the directory of the new name when it is missing.
func (s *Store) rename(temp, path string) error {
	err := os.Rename(temp, path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.makeDir(filepath.Dir(path)); err == nil {
			err = os.Rename(temp, path)
		}
	}
	return err
}

// DeleteRecord implements storage.Records.
func (s *Store) DeleteRecord(_ context.Context, key string) error {
	path := s.recordPath(key)
	if err := s.locked(path, func() error { return os.Remove(path) }); err != nil {
		return notFound(err, "record %s is unknown", key)
	}
	return syncDir(filepath.Dir(path))
}

// RemoveRecord implements storage.Records.
func (s *Store) RemoveRecord(_ context.Context, key string, old storage.Version) error {
	path := s.recordPath(key)
	err := s.locked(path, func() error {
		info, err := os.Stat(path)
		if err != nil {
			return notFound(err, "record %s is unknown", key)
		}
		if version(info.ModTime()) != old {
			return errdefs.Conflict("record %s was written by another request", key)
		}
		return os.Remove(path)
	})
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// ListRecords implements storage.Records.
func (s *Store) ListRecords(_ context.Context, prefix string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, "records", prefix))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list records %s: %w", prefix, err)
	}
	keys := make([]string, 0, len(entries))
	for _, entry := range entries {
		if name, ok := strings.CutPrefix(entry.Name(), "="); ok {
			keys = append(keys, name)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// RecordTime implements storage.Records.
func (s *Store) RecordTime(_ context.Context, key string) (time.Time, error) {
	info, err := os.Stat(s.recordPath(key))
	if err != nil {
		return time.Time{}, notFound(err, "record %s is unknown", key)
	}
	return info.ModTime(), nil
}

// TouchRecord implements storage.Records.
func (s *Store) TouchRecord(_ context.Context, key string) error {
	path := s.recordPath(key)
	err := s.locked(path, func() error {
		info, err := os.Stat(path)
		if err == nil {
			_, err = stamp(path, info.ModTime())
		}
		return err
	})
	return notFound(err, "record %s is unknown", key)
}
