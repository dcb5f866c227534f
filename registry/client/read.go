package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"davit/oci"
	"davit/oci/errdefs"
)

// Get reads the manifest or index behind a tag or digest in one request. A digest that is asked for is
// verified; bytes that have another one are errdefs.ErrDataLoss.
func (r *Repository) Get(ctx context.Context, tagOrDigest string) (desc oci.Descriptor, content []byte, err error) {
	err = r.anyEndpoint(ctx, func(e *endpoint) error {
		return r.attempt(ctx, e, func() error {
			var kind string
			if content, kind, err = r.manifest(ctx, e, tagOrDigest); err != nil {
				return err
			}
			if !known(kind) {
				kind = sniff(content, kind)
			}
			desc = oci.Descriptor{MediaType: kind, Digest: oci.DigestOf(content), Size: int64(len(content))}
			if asked, err := oci.ParseDigest(tagOrDigest); err == nil {
				desc.Digest = asked
				_, err = io.Copy(io.Discard, oci.Verify(bytes.NewReader(content), desc))
				return errdefs.As(errdefs.ErrDataLoss, err)
			}
			return checkManifestType(kind)
		})
	})
	if err != nil {
		return oci.Descriptor{}, nil, explainPull(r.named(tagOrDigest), err)
	}
	return desc, content, nil
}

// BlobSize returns a blob's size in bytes; a registry that does not say it is errdefs.ErrUnavailable.
func (r *Repository) BlobSize(ctx context.Context, d oci.Digest) (size int64, err error) {
	q := request{method: http.MethodHead, path: "blobs/" + string(d), scopes: r.pullScope(), accept: []int{http.StatusOK}}
	err = r.anyEndpoint(ctx, func(e *endpoint) error {
		return r.attempt(ctx, e, func() error {
			resp, err := r.do(ctx, e, q)
			if err != nil {
				return err
			}
			size = resp.ContentLength
			return resp.Body.Close()
		})
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("look for blob %s in registry %s: %w", d, r.name.Domain, err)
	case size < 0:
		return 0, errdefs.Unavailable("registry %s does not say how large blob %s is", r.name.Domain, d)
	}
	return size, nil
}

// Referrers returns the descriptors of the manifests whose subject is d, all pages of them. A registry
// without that list is errdefs.ErrNotFound.
func (r *Repository) Referrers(ctx context.Context, d oci.Digest) ([]oci.Descriptor, error) {
	base, err := r.origin().reach(ctx)
	if err != nil {
		return nil, err
	}
	var all []oci.Descriptor
	err = r.pages(ctx, base.JoinPath("v2", r.name.Path, "referrers", string(d)), r.pullScope(), func(page []byte) error {
		var index oci.Index
		err := json.Unmarshal(page, &index)
		all = append(all, index.Manifests...)
		return err
	})
	return all, explainPull(r.name.WithDigest(d), err)
}
