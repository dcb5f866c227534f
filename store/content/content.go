// Package content keeps blobs by digest in an OCI image layout (image-spec, image-layout.md), so that
// skopeo and umoci read davit's images where they lie:
//
//	<root>/oci-layout              {"imageLayoutVersion":"1.0.0"}
//	<root>/index.json              the named manifests, written by SetIndex
//	<root>/blobs/<alg>/<hex>       complete, verified, never changed
//	<root>/ingest/<alg>-<hex>      a blob on its way in; kept for a week when it breaks off, continued later
//	<root>/ingest/new-<random>     a blob whose digest is known only at its end; gone after a restart
//
// A blob is in blobs/ or it is not: bytes are hashed as they arrive, and only a file with the promised
// digest and size is synced and renamed into place. Killing the process or the machine at any moment
// leaves complete blobs and partial ingests, nothing between. A partial's bytes are hashed again when
// its ingest is continued, so nothing that a crash left behind is trusted.
//
// One process owns a root. Within it, writers of one digest take turns: the second waits until the
// first has committed, and is then told ErrExists, or has given up, and then continues from its partial.
//
// Blobs are deleted by Delete (a user's decision about one) and by Sweep (the collector's, see package
// gc); partial ingests by SweepIngests and, those older than a week, by Open. Whoever adds blobs that no name refers to yet takes a lease first (Lease) and releases it once
// the names are written; Sweep leaves alone what was added or asked for since the oldest lease.
package content

import (
	"context"
	"errors"
	"io"
	"time"

	"davit/oci"
)

// ErrExists says that the blob is in the store already: there is nothing to write.
var ErrExists = errors.New("blob exists")

// Blob describes one stored blob.
type Blob struct {
	Digest  oci.Digest
	Size    int64 // bytes
	Disk    int64 // bytes that it takes on the disk
	Created time.Time
}

// ReaderAt reads one blob: as a stream, or at any offset by several readers at once.
type ReaderAt interface {
	io.ReadSeekCloser
	io.ReaderAt
	Size() int64
}

// Writer brings one blob into the store. It is not safe for concurrent use. Its bytes are in the store
// after Commit and not before; Close without Commit keeps them for the next Writer of the digest.
type Writer interface {
	io.Writer

	// Offset returns how many bytes the ingest holds: where a resumed download continues.
	Offset() int64

	// Partial returns a reader of the first Offset() bytes, those that an earlier Writer wrote, for a
	// consumer that reads along (unpacking while downloading) and needs the stream from its start.
	Partial() io.Reader

	// Truncate drops what the ingest holds, for a source that cannot continue at Offset.
	Truncate() error

	// Commit verifies size and digest, syncs, and makes the blob visible. When they differ it
	// discards the ingest and returns an errdefs.ErrDataLoss; when bytes are missing it keeps it and
	// returns an error that is io.ErrUnexpectedEOF. It also closes the writer.
	Commit(ctx context.Context) error

	// Close gives the ingest up for now, keeping what it holds. After Commit it does nothing.
	Close() error
}

// NewWriter brings in a blob whose digest and size its end decides (build, load, import).
type NewWriter interface {
	io.Writer

	// Commit makes the blob visible and returns its sha256 descriptor, without media type. A blob that
	// the store had already is no error.
	Commit(ctx context.Context) (oci.Descriptor, error)

	// Close discards the ingest. After Commit it does nothing.
	Close() error
}
