package dir

import (
	"context"
	"crypto/rand"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// hashState is the content of uploads/<id>/hash: the running hash over the first Offset bytes of data.
type hashState struct {
	Algorithm string `json:"algorithm"`
	Offset    int64  `json:"offset"`
	State     []byte `json:"state"` // encoding.BinaryMarshaler's form; empty at offset 0
}

func (s *Store) uploadPath(id, name string) string {
	return filepath.Join(s.root, "uploads", filepath.Base(id), name)
}

// CreateUpload implements storage.Uploads.
func (s *Store) CreateUpload(_ context.Context, algorithm string) (string, error) {
	id := rand.Text()
	if err := os.Mkdir(s.uploadPath(id, ""), 0o700); err != nil {
		return "", fmt.Errorf("create upload: %w", err)
	}
	file, err := os.OpenFile(s.uploadPath(id, "data"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("create upload: %w", err)
	}
	if err := file.Close(); err != nil {
		return "", fmt.Errorf("create upload: %w", err)
	}
	return id, s.saveHash(id, hashState{Algorithm: algorithm})
}

// UploadOffset implements storage.Uploads.
func (s *Store) UploadOffset(_ context.Context, id string) (int64, error) {
	info, err := os.Stat(s.uploadPath(id, "data"))
	if err != nil {
		return 0, notFound(err, "upload %s is unknown", id)
	}
	return info.Size(), nil
}

// openUpload opens an upload's data for one writer: while another appends or commits, in any process,
// it is errdefs.ErrConflict. The lock is the kernel's (flock(2)) and ends with the file or the process.
func (s *Store) openUpload(id string) (*os.File, error) {
	file, err := os.OpenFile(s.uploadPath(id, "data"), os.O_RDWR, 0)
	if err != nil {
		return nil, notFound(err, "upload %s is unknown", id)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errdefs.Conflict("upload %s is being written by another request", id)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// OpenUpload implements storage.Tails.
func (s *Store) OpenUpload(_ context.Context, id string) (storage.Tail, error) {
	file, err := os.Open(s.uploadPath(id, "data"))
	if err != nil {
		return nil, notFound(err, "upload %s is unknown", id)
	}
	return file, nil
}

// AppendUpload implements storage.Uploads.
func (s *Store) AppendUpload(_ context.Context, id string, at int64, r io.Reader) (end int64, err error) {
	file, err := s.openUpload(id)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	end, err = file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("append to upload: %w", err)
	}
	if end != at {
		return end, errdefs.Conflict("upload %s has %d bytes, a chunk at %d does not continue it", id, end, at)
	}
	state, h, err := s.loadHash(id, file, end)
	if err != nil {
		return end, err
	}
	n, err := copyCounted(io.MultiWriter(file, h), r)
	end += n
	state.Offset = end
	if state.State, _ = h.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return end, errors.Join(fmt.Errorf("append to upload: %w", err), s.saveHash(id, state))
	}
	return end, s.saveHash(id, state)
}

// loadHash returns the running hash at offset end of data. A state that does not fit (the process was
// killed between writing data and saving it) is made again by reading data.
func (s *Store) loadHash(id string, data *os.File, end int64) (hashState, hash.Hash, error) {
	var state hashState
	value, err := os.ReadFile(s.uploadPath(id, "hash"))
	if err != nil {
		return state, nil, notFound(err, "upload %s is unknown", id)
	}
	if err := json.Unmarshal(value, &state); err != nil {
		state = hashState{Algorithm: "sha256"} // torn by a power failure: it was not synced
	}
	h := oci.Digest(state.Algorithm + ":").Hash()
	if h == nil {
		return state, nil, errdefs.Invalid("unsupported digest algorithm %q", state.Algorithm)
	}
	if state.Offset == end && end > 0 {
		if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state.State); err == nil {
			return state, h, nil
		}
	}
	h.Reset()
	if _, err := copyCounted(h, io.NewSectionReader(data, 0, end)); err != nil {
		return state, nil, fmt.Errorf("hash upload %s again: %w", id, err)
	}
	return state, h, nil
}

// saveHash needs no sync: a lost state is made again.
func (s *Store) saveHash(id string, state hashState) error {
	value, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("save hash of upload %s: %w", id, err)
	}
	temp := s.uploadPath(id, "hash.new")
	if err := os.WriteFile(temp, value, 0o600); err != nil {
		return fmt.Errorf("save hash of upload %s: %w", id, err)
	}
	return os.Rename(temp, s.uploadPath(id, "hash"))
}

// CommitUpload implements storage.Uploads.
func (s *Store) CommitUpload(ctx context.Context, id string, d oci.Digest) (size int64, err error) {
	file, err := s.openUpload(id)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	size, err = file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("commit upload: %w", err)
	}
	got, err := s.sum(id, file, size, d.Algorithm())
	if err != nil {
		return 0, err
	}
	if got != d {
		return 0, errors.Join(errdefs.Invalid("the uploaded content has digest %s, not %s", got, d), s.CancelUpload(ctx, id))
	}
	if err := file.Sync(); err != nil {
		return 0, fmt.Errorf("commit upload: %w", err)
	}
	if err := s.placeBlob(s.uploadPath(id, "data"), d); err != nil {
		return 0, fmt.Errorf("commit upload: %w", err)
	}
	return size, s.CancelUpload(ctx, id)
}

// sum returns the digest of an upload, from the running hash when it has the wanted algorithm.
func (s *Store) sum(id string, file *os.File, size int64, algorithm string) (oci.Digest, error) {
	state, h, err := s.loadHash(id, file, size)
	if err != nil {
		return "", err
	}
	if state.Algorithm != algorithm {
		h = oci.Digest(algorithm + ":").Hash()
		if _, err := copyCounted(h, io.NewSectionReader(file, 0, size)); err != nil {
			return "", fmt.Errorf("hash upload %s: %w", id, err)
		}
	}
	return oci.SumDigest(algorithm, h), nil
}

// CancelUpload implements storage.Uploads.
func (s *Store) CancelUpload(_ context.Context, id string) error {
	dir := s.uploadPath(id, "")
	if _, err := os.Stat(s.uploadPath(id, "hash")); err != nil {
		return notFound(err, "upload %s is unknown", id)
	}
	return os.RemoveAll(dir)
}

// ExpireUploads implements storage.Uploads.
func (s *Store) ExpireUploads(ctx context.Context, before time.Time) error {
	for _, sub := range []string{"uploads", "new"} {
		entries, err := os.ReadDir(filepath.Join(s.root, sub))
		if err != nil {
			return fmt.Errorf("expire uploads: %w", err)
		}
		for _, entry := range entries {
			path := filepath.Join(s.root, sub, entry.Name())
			if touched, err := lastTouched(path); err != nil || touched.After(before) {
				continue // gone, or in use
			}
			if err := errors.Join(ctx.Err(), os.RemoveAll(path)); err != nil {
				return fmt.Errorf("expire uploads: %w", err)
			}
		}
	}
	return nil
}

// lastTouched is the latest change of a file, or of an upload's directory and its data; the latter grows
// during a long append.
func lastTouched(path string) (time.Time, error) {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}, err
	}
	touched := info.ModTime()
	if data, err := os.Stat(filepath.Join(path, "data")); err == nil && data.ModTime().After(touched) {
		touched = data.ModTime()
	}
	return touched, nil
}
