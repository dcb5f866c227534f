// Package storage is what the registry needs of a place that keeps bytes: content named by digest,
// uploads that grow until they become content, and small records named by keys. A local directory
// offers it (package storage/dir) and so does an object store (package storage/bucket), since nothing
// here asks for locks, renames or directories.
//
// Any number of processes may use one place at the same time. They agree by comparing and swapping
// versions of records, so that one that is killed, or stops for an hour, holds nobody up.
//
// What a successful call promises is durable: it survives the process and, but for unfinished uploads,
// the machine. Package storagetest checks an implementation.
package storage

import (
	"context"
	"io"
	"time"

	"davit/oci"
)

// Store is all of it. A missing thing is an errdefs.ErrNotFound everywhere.
type Store interface {
	Blobs
	Uploads
	Records
}

// Blob is content opened for reading. A file-backed one is an *os.File, so that it can be sent by the
// kernel (sendfile).
type Blob interface {
	io.ReadSeekCloser
}

// Blobs is content by digest, shared by all repositories.
type Blobs interface {
	// StatBlob returns the size in bytes.
	StatBlob(ctx context.Context, d oci.Digest) (int64, error)
	// OpenBlob opens content; its bytes were verified when they came in.
	OpenBlob(ctx context.Context, d oci.Digest) (Blob, error)
	// PutBlob stores small content whose digest the caller has just computed.
	PutBlob(ctx context.Context, d oci.Digest, content []byte) error
	// DeleteBlob removes content; readers that have it open are not disturbed.
	DeleteBlob(ctx context.Context, d oci.Digest) error
	// CondemnBlob announces that content may be removed; it stays readable. The version names this
	// announcement, or the one that stands already.
	CondemnBlob(ctx context.Context, d oci.Digest) (Version, error)
	// KeepBlob revokes every announcement made so far: who has written a reference and then kept the
	// blob can rely on it. Storing the same content again revokes too.
	KeepBlob(ctx context.Context, d oci.Digest) error
	// RemoveBlob is DeleteBlob while the announcement stands, else ErrConflict. Who looks for references
	// after the announcement, finds none and then removes has not taken what anybody relies on.
	RemoveBlob(ctx context.Context, d oci.Digest, condemned Version) error
	// WalkBlobs calls f for every blob with the time at which it came in.
	WalkBlobs(ctx context.Context, f func(d oci.Digest, size int64, stored time.Time) error) error
}

// Addresses is what a Store may have beside: addresses that clients can read blobs from by themselves.
type Addresses interface {
	// BlobURL returns one that is good for the given time.
	BlobURL(ctx context.Context, d oci.Digest, valid time.Duration) (string, error)
}

// Uploads grow by appending and end as content, or not at all.
type Uploads interface {
	// CreateUpload starts an empty upload; algorithm is that of the digest it is expected to end with.
	CreateUpload(ctx context.Context, algorithm string) (id string, err error)
	// UploadOffset returns how many bytes an upload has.
	UploadOffset(ctx context.Context, id string) (int64, error)
	// AppendUpload adds the bytes of r at offset at, which must be the upload's present end (else
	// ErrConflict), and returns the new end. When r fails, what had arrived is kept. While one append or
	// commit runs another is ErrConflict. Bytes appended survive the process; the machine only once they
	// are committed.
	AppendUpload(ctx context.Context, id string, at int64, r io.Reader) (int64, error)
	// CommitUpload makes an upload the content d and returns its size. When the bytes have another
	// digest it fails with ErrInvalid and the upload is gone.
	CommitUpload(ctx context.Context, id string, d oci.Digest) (int64, error)
	// CancelUpload forgets an upload.
	CancelUpload(ctx context.Context, id string) error
	// ExpireUploads forgets uploads that were last touched before the given time.
	ExpireUploads(ctx context.Context, before time.Time) error
}

// Version names one write of one key: no later write has the same, though it writes the same value.
type Version string

// Absent is the version of a record that is not there.
const Absent Version = ""

// Record is a record as it was at one time.
type Record struct {
	Value   []byte
	Version Version
	Put     time.Time // or touched
}

// Tails is an extra ability: uploads can be read while they grow. What AppendUpload took from its reader
// can be read once it reads again.
type Tails interface {
	OpenUpload(ctx context.Context, id string) (Tail, error)
}

// Tail reads an upload; one that is opened stays readable when the upload becomes a blob or goes.
type Tail interface {
	io.ReaderAt
	io.Closer
}

// Records are small values under slash-separated keys. All changes are atomic.
type Records interface {
	GetRecord(ctx context.Context, key string) ([]byte, error)
	// ReadRecord is GetRecord with version and time.
	ReadRecord(ctx context.Context, key string) (Record, error)
	PutRecord(ctx context.Context, key string, value []byte) error
	// SwapRecord is PutRecord while the record has the version old, else ErrConflict. It returns the new
	// version.
	SwapRecord(ctx context.Context, key string, old Version, value []byte) (Version, error)
	DeleteRecord(ctx context.Context, key string) error
	// RemoveRecord is DeleteRecord while the record has the version old, else ErrConflict.
	RemoveRecord(ctx context.Context, key string, old Version) error
	// ListRecords returns the last key elements directly under a prefix, sorted; of an unknown prefix none.
	ListRecords(ctx context.Context, prefix string) ([]string, error)
	// RecordTime returns when a record was last put.
	RecordTime(ctx context.Context, key string) (time.Time, error)
	// TouchRecord makes a record as young as if it had just been put; its version is a new one.
	TouchRecord(ctx context.Context, key string) error
}
