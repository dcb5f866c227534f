package bucket

import (
	"context"
	"crypto/rand"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// upload is the value of an upload's cell. Bytes go to the parts of a multipart upload; what is too short
// for a part is the tail, an object of its own. Whoever appends a part first swaps Writing in; whoever
// finds it there takes the upload over, and leaves out the part number that the other may be writing. The
// other's next swap fails: no writer waits for one that is gone.
type upload struct {
	Algorithm string     `json:"algorithm"`
	Offset    int64      `json:"offset"`
	Hash      []byte     `json:"hash,omitempty"` // encoding.BinaryMarshaler's form, after Offset bytes
	Multipart string     `json:"multipart,omitempty"`
	Parts     []part     `json:"parts,omitempty"`
	Next      int        `json:"next"` // number of the next part
	Tail      place      `json:"tail"`
	Writing   bool       `json:"writing,omitempty"`
	Commit    oci.Digest `json:"commit,omitempty"` // the digest, once it is verified
}

type part struct {
	Number int    `json:"n"`
	Tag    string `json:"tag"`
}

// Sizes of parts in bytes: S3 has 5 MiB at least and 10,000 parts at most, which makes 296 GiB here.
const (
	partSize      = 8 << 20
	largePartSize = 32 << 20
	smallParts    = 1000
)

func sizeOfPart(number int) int {
	if number <= smallParts {
		return partSize
	}
	return largePartSize
}

func uploadKey(id string) string { return "uploads/" + id }

func checkUpload(id string) error {
	if id == "" || strings.ContainsAny(id, "/.") {
		return errdefs.NotFound("upload %s is unknown", id)
	}
	return nil
}

// assembled is the object of an upload that has parts.
func assembled(id string) string { return "data/" + id }

// CreateUpload implements storage.Uploads.
func (s *Store) CreateUpload(ctx context.Context, algorithm string) (string, error) {
	id := rand.Text()
	if _, err := s.swapUpload(ctx, id, storage.Absent, upload{Algorithm: algorithm, Next: 1}); err != nil {
		return "", fmt.Errorf("create upload: %w", err)
	}
	return id, nil
}

func (s *Store) upload(ctx context.Context, id string) (u upload, version storage.Version, err error) {
	if err := checkUpload(id); err != nil {
		return u, "", err
	}
	record, err := s.read(ctx, uploadKey(id))
	if errors.Is(err, errdefs.ErrNotFound) {
		err = errdefs.NotFound("upload %s is unknown", id)
	}
	if err == nil {
		err = json.Unmarshal(record.Value, &u)
	}
	return u, record.Version, err
}

func (s *Store) swapUpload(ctx context.Context, id string, old storage.Version, u upload) (storage.Version, error) {
	value, err := json.Marshal(u)
	if err != nil {
		return "", err
	}
	return s.swap(ctx, uploadKey(id), old, value)
}

// UploadOffset implements storage.Uploads.
func (s *Store) UploadOffset(ctx context.Context, id string) (int64, error) {
	u, _, err := s.upload(ctx, id)
	return u.Offset, err
}

// hash returns the running hash after Offset bytes.
func (u upload) hash() (hash.Hash, error) {
	h := oci.Digest(u.Algorithm + ":").Hash()
	if h == nil {
		return nil, errdefs.Invalid("unsupported digest algorithm %q", u.Algorithm)
	}
	if len(u.Hash) == 0 {
		return h, nil
	}
	return h, h.(encoding.BinaryUnmarshaler).UnmarshalBinary(u.Hash)
}

// CommitUpload implements storage.Uploads. Each step may be repeated by another process after this one
// was killed: the client asks again.
func (s *Store) CommitUpload(ctx context.Context, id string, d oci.Digest) (int64, error) {
	// An upload that is being committed expires after a longer time than this.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	u, version, err := s.upload(ctx, id)
	if err != nil {
		return 0, err
	}
	if u.Commit != "" && u.Commit != d {
		return 0, errdefs.Conflict("upload %s is being committed as %s", id, u.Commit)
	}
	again := u.Commit != ""
	if u, version, err = s.beginCommit(ctx, id, u, version, d); err != nil {
		return 0, err
	}
	p, err := s.assemble(ctx, id, u)
	if err != nil {
		return 0, fmt.Errorf("commit upload: %w", err)
	}
	if d.Algorithm() != u.Algorithm {
		if err := s.verify(ctx, id, version, p, d); err != nil {
			return 0, err
		}
	}
	if err := s.publish(ctx, d, p); err != nil {
		return 0, fmt.Errorf("commit upload: %w", err)
	}
	if again { // what was published then may have been collected since
		if has, err := s.renew(ctx, d); err != nil || !has {
			return 0, errors.Join(errdefs.NotFound("upload %s is gone", id), err)
		}
	}
	if u.Tail.Object != "" && u.Tail.Object != p.Object {
		err = s.deleteObject(ctx, u.Tail.Object)
	}
	return p.Size, errors.Join(err, s.deleteObject(ctx, uploadKey(id)))
}

// beginCommit says in the cell what the upload becomes. From then on it is not appended to, and not
// cancelled; one that another process began is as young again.
func (s *Store) beginCommit(ctx context.Context, id string, u upload, version storage.Version, d oci.Digest) (upload, storage.Version, error) {
	h, err := u.hash()
	if err != nil {
		return u, "", err
	}
	if got := oci.SumDigest(u.Algorithm, h); d.Algorithm() == u.Algorithm && got != d {
		return u, "", errors.Join(errdefs.Invalid("the uploaded content has digest %s, not %s", got, d), s.discard(ctx, id, u, version))
	}
	if u.Writing {
		u.Writing = false
		u.Next++
	}
	u.Commit = d
	version, err = s.swapUpload(ctx, id, version, u)
	return u, version, err
}

// assemble makes an upload one object.
func (s *Store) assemble(ctx context.Context, id string, u upload) (place, error) {
	if u.Multipart == "" {
		if u.Tail.Object != "" {
			return u.Tail, nil
		}
		key := newData()
		_, err := s.putObject(ctx, key, nil, condition{})
		return place{key, 0}, err
	}
	whole := place{assembled(id), u.Offset}
	parts := u.Parts
	if u.Tail.Object != "" {
		tail, _, err := s.readObject(ctx, u.Tail.Object)
		if err != nil {
			return whole, s.assembledBefore(ctx, whole, err)
		}
		last, err := s.putPart(ctx, id, u.Multipart, u.Next, tail)
		if err != nil {
			return whole, s.assembledBefore(ctx, whole, err)
		}
		parts = append(parts[:len(parts):len(parts)], last)
	}
	complete := make([]minio.CompletePart, len(parts))
	for i, p := range parts {
		complete[i] = minio.CompletePart{PartNumber: p.Number, ETag: p.Tag}
	}
	_, err := s.s3.CompleteMultipartUpload(ctx, s.bucket, s.prefix+whole.Object, u.Multipart, complete, minio.PutObjectOptions{})
	return whole, s.assembledBefore(ctx, whole, classify(err))
}

// assembledBefore is nil instead of a missing object's error when an earlier attempt did all of it.
func (s *Store) assembledBefore(ctx context.Context, whole place, err error) error {
	if !errors.Is(err, errNoObject) {
		return err
	}
	info, statErr := s.statObject(ctx, whole.Object)
	if statErr == nil && info.Size == whole.Size {
		return nil
	}
	return errors.Join(err, statErr)
}

// verify reads content whose running hash was of another algorithm.
func (s *Store) verify(ctx context.Context, id string, version storage.Version, p place, d oci.Digest) error {
	r, err := s.openReader(ctx, p)
	if err != nil {
		return fmt.Errorf("commit upload: %w", err)
	}
	h := d.Hash()
	_, err = io.Copy(h, r)
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("commit upload: %w", err)
	}
	got := oci.SumDigest(d.Algorithm(), h)
	if got == d {
		return nil
	}
	err = errdefs.Invalid("the uploaded content has digest %s, not %s", got, d)
	return errors.Join(err, s.remove(ctx, uploadKey(id), version), s.deleteObject(ctx, p.Object), s.deleteObject(ctx, uploadKey(id)))
}

// CancelUpload implements storage.Uploads.
func (s *Store) CancelUpload(ctx context.Context, id string) error {
	u, version, err := s.upload(ctx, id)
	if err != nil {
		return err
	}
	if u.Commit != "" {
		return errdefs.Conflict("upload %s is being committed", id)
	}
	return s.discard(ctx, id, u, version)
}

func (s *Store) abort(ctx context.Context, id, multipart string) error {
	err := classify(s.s3.AbortMultipartUpload(ctx, s.bucket, s.prefix+assembled(id), multipart))
	if errors.Is(err, errNoObject) {
		return nil
	}
	return err
}

// discard forgets an upload that nobody has gone on with since it had the version.
func (s *Store) discard(ctx context.Context, id string, u upload, version storage.Version) error {
	if err := s.remove(ctx, uploadKey(id), version); err != nil {
		return err
	}
	var err error
	if u.Multipart != "" {
		err = s.abort(ctx, id, u.Multipart)
	}
	if u.Tail.Object != "" {
		err = errors.Join(err, s.deleteObject(ctx, u.Tail.Object))
	}
	// Nobody creates a cell under an upload's key twice, so its object may go at once.
	return errors.Join(err, s.deleteObject(ctx, uploadKey(id)))
}
