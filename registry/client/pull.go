package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
)

// maxManifest bounds a manifest's size in bytes; the specification asks for at least 4 MiB.
const maxManifest = 8 << 20

// manifestTypes are what a manifest request accepts.
func manifestTypes() []string {
	return []string{oci.MediaTypeIndex, oci.MediaTypeManifest, oci.MediaTypeDockerList, oci.MediaTypeDockerManifest}
}

// Resolve returns the descriptor of the manifest or index behind a tag or digest. When there is none,
// the error is errdefs.ErrNotFound, in Docker's words.
func (r *Repository) Resolve(ctx context.Context, tagOrDigest string) (oci.Descriptor, error) {
	var desc oci.Descriptor
	err := r.anyEndpoint(ctx, func(e *endpoint) error {
		return r.attempt(ctx, e, func() (err error) {
			desc, err = r.head(ctx, e, tagOrDigest)
			return err
		})
	})
	if err != nil {
		return oci.Descriptor{}, explainPull(r.named(tagOrDigest), err)
	}
	return desc, nil
}

func (r *Repository) named(tagOrDigest string) ref.Ref {
	if d, err := oci.ParseDigest(tagOrDigest); err == nil {
		return r.name.WithDigest(d)
	}
	return r.name.WithTag(tagOrDigest)
}

func (r *Repository) head(ctx context.Context, e *endpoint, tagOrDigest string) (oci.Descriptor, error) {
	resp, err := r.do(ctx, e, request{
		method: http.MethodHead, path: "manifests/" + tagOrDigest, scopes: r.pullScope(),
		header: http.Header{"Accept": manifestTypes()}, accept: []int{http.StatusOK},
	})
	var refusal *Error
	if errors.As(err, &refusal) && refusal.Code == "" && !refusal.temporary() {
		// An answer to HEAD has no body: ask again for the one that explains.
		return r.get(ctx, e, tagOrDigest)
	}
	if err != nil {
		return oci.Descriptor{}, err
	}
	resp.Body.Close()
	desc := oci.Descriptor{MediaType: mediaType(resp.Header), Size: resp.ContentLength}
	if err := checkManifestType(desc.MediaType); err != nil {
		return oci.Descriptor{}, err
	}
	desc.Digest, err = oci.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
	if err != nil || desc.Size < 0 || !known(desc.MediaType) {
		return r.get(ctx, e, tagOrDigest) // some registries leave the headers out
	}
	return desc, nil
}

// get reads a manifest whole to describe it.
func (r *Repository) get(ctx context.Context, e *endpoint, tagOrDigest string) (oci.Descriptor, error) {
	content, mediaType, err := r.manifest(ctx, e, tagOrDigest)
	if err != nil {
		return oci.Descriptor{}, err
	}
	if !known(mediaType) {
		mediaType = sniff(content, mediaType)
	}
	desc := oci.Descriptor{MediaType: mediaType, Digest: oci.DigestOf(content), Size: int64(len(content))}
	return desc, checkManifestType(mediaType)
}

func known(mediaType string) bool { return oci.IsIndex(mediaType) || oci.IsManifest(mediaType) }

// sniff reads the media type that a manifest gives itself, for registries that send another one.
func sniff(content []byte, header string) string {
	var self struct {
		MediaType     string            `json:"mediaType"`
		SchemaVersion int               `json:"schemaVersion"`
		Manifests     []json.RawMessage `json:"manifests"`
	}
	switch err := json.Unmarshal(content, &self); {
	case err != nil:
		return header
	case self.MediaType != "":
		return self.MediaType
	case self.SchemaVersion == 1:
		return schema1 + "json"
	case self.Manifests != nil:
		return oci.MediaTypeIndex
	}
	return oci.MediaTypeManifest
}

// schema1 begins the media types of Docker's first manifests.
const schema1 = "application/vnd.docker.distribution.manifest.v1+"

func (r *Repository) manifest(ctx context.Context, e *endpoint, tagOrDigest string) ([]byte, string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := r.do(ctx, e, request{
		method: http.MethodGet, path: "manifests/" + tagOrDigest, scopes: r.pullScope(),
		header: http.Header{"Accept": manifestTypes()}, accept: []int{http.StatusOK},
	})
	if err != nil {
		return nil, "", err
	}
	body := newIdleBody(resp.Body, r.client.o.IdleTimeout, cancel)
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, maxManifest+1))
	if err != nil {
		return nil, "", fmt.Errorf("read manifest %s: %w", tagOrDigest, err)
	}
	if len(content) > maxManifest {
		return nil, "", errdefs.Invalid("manifest %s is larger than %d bytes", tagOrDigest, maxManifest)
	}
	return content, mediaType(resp.Header), nil
}

func mediaType(h http.Header) string {
	value, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.TrimSpace(value)
}

func checkManifestType(mediaType string) error {
	if strings.HasPrefix(mediaType, schema1) {
		return errdefs.Invalid("the image is in Docker's manifest schema 1, which is not supported: push it again with a current client")
	}
	return nil
}

// Fetch opens a manifest or blob from an offset on. A blob's reader asks for the rest when the
// connection breaks. The bytes are as the registry sent them; their digest is the caller's to check,
// except that a manifest with another digest is errdefs.ErrDataLoss at once.
func (r *Repository) Fetch(ctx context.Context, desc oci.Descriptor, offset int64) (io.ReadCloser, error) {
	if known(desc.MediaType) {
		content, err := r.fetchManifest(ctx, desc)
		if err != nil {
			return nil, explainPull(r.name.WithDigest(desc.Digest), err)
		}
		return io.NopCloser(bytes.NewReader(content[min(offset, int64(len(content))):])), nil
	}
	b := &blob{repository: r, ctx: ctx, desc: desc, at: offset}
	if err := b.connect(); err != nil {
		return nil, fmt.Errorf("pull blob %s from registry %s: %w", desc.Digest, r.name.Domain, err)
	}
	return b, nil
}

func (r *Repository) fetchManifest(ctx context.Context, desc oci.Descriptor) (content []byte, err error) {
	err = r.anyEndpoint(ctx, func(e *endpoint) error {
		return r.attempt(ctx, e, func() error {
			content, _, err = r.manifest(ctx, e, string(desc.Digest))
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, oci.Verify(bytes.NewReader(content), desc))
			return errdefs.As(errdefs.ErrDataLoss, err)
		})
	})
	return content, err
}

// blob reads one blob over as many connections as it takes.
type blob struct {
	repository *Repository
	ctx        context.Context
	desc       oci.Descriptor
	at         int64 // the next byte

	body     io.ReadCloser // nil between connections
	read     int64         // bytes that this connection gave
	failures int           // in a row without progress
}

// progressEnough is how many bytes make an attempt a success that starts the count of failures anew.
const progressEnough = 4 << 10

// Read implements io.Reader.
func (b *blob) Read(p []byte) (int, error) {
	for {
		if b.body == nil {
			if err := b.connect(); err != nil {
				return 0, err
			}
		}
		n, err := b.body.Read(p)
		b.at += int64(n)
		b.read += int64(n)
		if b.at > b.desc.Size {
			return 0, errdefs.New(errdefs.ErrDataLoss, "blob %s is longer than the expected %d bytes", b.desc.Digest, b.desc.Size)
		}
		if n > 0 || err == nil {
			return n, nil // an error comes again with the next read
		}
		if err == io.EOF && b.at == b.desc.Size {
			return 0, io.EOF
		}
		if err := b.broken(err); err != nil {
			return 0, err
		}
	}
}

// broken takes note of a connection's end before the blob's, and waits before the next.
func (b *blob) broken(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	b.body.Close()
	b.body = nil
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if b.read >= progressEnough {
		b.failures = 0
	}
	b.failures++
	err = fmt.Errorf("blob %s from registry %s broke off at byte %d of %d: %w", b.desc.Digest, b.repository.name.Domain, b.at, b.desc.Size, err)
	if b.failures >= b.repository.client.o.Attempts {
		return errdefs.As(errdefs.ErrUnavailable, err)
	}
	return b.repository.pause(b.ctx, b.failures, err)
}

// connect opens the blob from b.at on. An address at which nobody answers is tried again only when the
// registry was there before.
func (b *blob) connect() error {
	started := b.failures > 0
	for {
		err := b.repository.anyEndpoint(b.ctx, b.open)
		if err == nil {
			return nil
		}
		b.failures++
		if !(retryable(err) || started && firstContactFailed(err)) || b.failures >= b.repository.client.o.Attempts {
			return err
		}
		if err := b.repository.pause(b.ctx, b.failures, err); err != nil {
			return err
		}
	}
}

func (b *blob) open(e *endpoint) error {
	if b.at == b.desc.Size {
		b.body = http.NoBody
		return nil
	}
	ctx, cancel := context.WithCancelCause(b.ctx)
	q := request{method: http.MethodGet, path: "blobs/" + string(b.desc.Digest), scopes: b.repository.pullScope(), accept: []int{http.StatusOK}}
	if b.at > 0 {
		q.header = http.Header{"Range": {"bytes=" + strconv.FormatInt(b.at, 10) + "-"}}
		q.accept = append(q.accept, http.StatusPartialContent)
	}
	resp, err := b.repository.do(ctx, e, q)
	if err != nil {
		cancel(nil)
		return err
	}
	body := newIdleBody(resp.Body, b.repository.client.o.IdleTimeout, cancel)
	if err := b.align(resp, body); err != nil {
		body.Close()
		return err
	}
	b.body, b.read = body, 0
	return nil
}

// align brings a response to byte b.at: a server may ignore the Range header and send all.
func (b *blob) align(resp *http.Response, body io.Reader) error {
	if resp.StatusCode == http.StatusPartialContent {
		want := fmt.Sprintf("bytes %d-", b.at)
		if got := resp.Header.Get("Content-Range"); !strings.HasPrefix(got, want) {
			return errdefs.New(errdefs.ErrDataLoss, "registry %s sent the range %q instead of %s", b.repository.name.Domain, got, want)
		}
		return nil
	}
	if _, err := io.CopyN(io.Discard, body, b.at); err != nil {
		return fmt.Errorf("skip to byte %d: %w", b.at, err)
	}
	return nil
}

// Close implements io.Closer.
func (b *blob) Close() error {
	if b.body == nil {
		return nil
	}
	return b.body.Close()
}
