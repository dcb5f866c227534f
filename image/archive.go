package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/layer"
)

// archive is an image archive, spooled to an unnamed file so that its entries can be read in any order.
type archive struct {
	file    *os.File
	entries map[string]section // by clean path
}

// section is where an entry's content lies in the file. A link has the path that it leads to instead.
type section struct {
	offset, size int64
	link         string
}

// maxEntries bounds an archive's table of contents.
const maxEntries = 1 << 20

// spool reads an archive in any compression to its end. The caller closes the result.
func spool(ctx context.Context, r io.Reader, dir string) (a *archive, err error) {
	file, err := os.CreateTemp(dir, "load-*")
	if err != nil {
		return nil, fmt.Errorf("spool archive: %w", err)
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	if err := os.Remove(file.Name()); err != nil {
		return nil, fmt.Errorf("spool archive: %w", err)
	}
	plain, _, err := layer.Decompress(r)
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	defer plain.Close()
	a = &archive{file: file, entries: map[string]section{}}
	at := &offsetWriter{w: file}
	entries := tar.NewReader(plain)
	for {
		header, err := entries.Next()
		if err == io.EOF {
			return a, nil
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil && len(a.entries) >= maxEntries {
			err = errdefs.Invalid("the archive has more than %d entries", maxEntries)
		}
		if err == nil {
			err = a.add(header, entries, at)
		}
		if err != nil {
			return nil, fmt.Errorf("read archive: %w", err)
		}
	}
}

func (a *archive) add(header *tar.Header, content io.Reader, to *offsetWriter) error {
	name := cleanPath(path.Clean(header.Name))
	switch header.Typeflag {
	case tar.TypeReg:
		start := to.n
		if _, err := io.Copy(to, content); err != nil {
			return err
		}
		a.entries[name] = section{offset: start, size: to.n - start}
	case tar.TypeLink:
		a.entries[name] = section{link: cleanPath(path.Clean(header.Linkname))}
	case tar.TypeSymlink: // docker 1.9 linked equal layers
		a.entries[name] = section{link: cleanPath(path.Join(path.Dir(name), header.Linkname))}
	}
	return nil
}

// offsetWriter knows how much went through it.
type offsetWriter struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (o *offsetWriter) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	o.n += int64(n)
	return n, err
}

// Close lets go of the spooled bytes.
func (a *archive) Close() error { return a.file.Close() }

// open returns an entry's content, or an errdefs.ErrNotFound error.
func (a *archive) open(name string) (*io.SectionReader, error) {
	const maxLinks = 8
	at := cleanPath(path.Clean(name))
	for range maxLinks {
		entry, ok := a.entries[at]
		if !ok {
			return nil, errdefs.NotFound("the archive has no %s", name)
		}
		if entry.link == "" {
			return io.NewSectionReader(a.file, entry.offset, entry.size), nil
		}
		at = entry.link
	}
	return nil, errdefs.Invalid("the archive's links lead in a circle at %s", name)
}

func (a *archive) has(name string) bool {
	_, err := a.open(name)
	return err == nil
}

func (a *archive) readAll(name string) ([]byte, error) {
	r, err := a.open(name)
	if err != nil {
		return nil, err
	}
	if r.Size() > maxConfig {
		return nil, errdefs.Invalid("%s in the archive is larger than the allowed %d bytes", name, maxConfig)
	}
	return io.ReadAll(r)
}

func (a *archive) json(name string, into any) error {
	b, err := a.readAll(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return errdefs.Invalid("read %s of the archive: %w", name, err)
	}
	return nil
}

// Resolve implements Source for archives of one manifest; Load chooses among several itself.
func (a *archive) Resolve(ctx context.Context, tagOrDigest string) (oci.Descriptor, error) {
	digest, err := oci.ParseDigest(tagOrDigest)
	if err != nil {
		return oci.Descriptor{}, err
	}
	b, err := a.readAll(blobPath(digest))
	if err != nil {
		return oci.Descriptor{}, err
	}
	var kind struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(b, &kind); err != nil {
		return oci.Descriptor{}, errdefs.Invalid("read manifest of the archive: %w", err)
	}
	return oci.Descriptor{MediaType: kind.MediaType, Digest: digest, Size: int64(len(b))}, nil
}

// Fetch implements Source over the archive's blobs.
func (a *archive) Fetch(ctx context.Context, desc oci.Descriptor, offset int64) (io.ReadCloser, error) {
	if desc.Size == int64(len(desc.Data)) && len(desc.Data) > 0 {
		return io.NopCloser(bytes.NewReader(desc.Data[offset:])), nil
	}
	r, err := a.open(blobPath(desc.Digest))
	if err != nil {
		return nil, err
	}
	if _, err := r.Seek(offset, io.SeekStart); err != nil {
		return nil, err
	}
	return io.NopCloser(&contextReader{ctx, r}), nil
}

// contextReader ends reading when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c *contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// kindOf says by its files what an archive is.
func (a *archive) kindOf() (ociLayout, docker bool) {
	return a.has("index.json"), a.has("manifest.json")
}

var errNotAnArchive = errors.New("it holds neither index.json (OCI) nor manifest.json (Docker)")
