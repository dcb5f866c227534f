package client

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"davit/oci"
	"davit/oci/errdefs"
)

// deltaHeader is how a davit registry says, with a manifest, that it sends deltas.
const deltaHeader = "Davit-Delta"

// Delta opens what a layer has that the layers have do not, in the form of package store/delta; manifest is
// that of an image with the layer. Only a davit registry that said so before is asked, and once: the error is
// errdefs.ErrNotFound when there is none.
func (r *Repository) Delta(ctx context.Context, layer, manifest oci.Descriptor, have []oci.Digest) (io.ReadCloser, error) {
	query := url.Values{"manifest": {string(manifest.Digest)}}
	for _, d := range have {
		query.Add("have", string(d))
	}
	err := errdefs.NotFound("registry %s sends no deltas", r.name.Domain)
	for _, e := range r.endpoints {
		if !e.deltas.Load() {
			continue
		}
		query.Set("most", strconv.Itoa(worthUpTo(e.host)))
		var body io.ReadCloser
		if body, err = r.delta(ctx, e, "delta/"+string(layer.Digest)+"?"+query.Encode()); err == nil {
			return body, nil
		}
	}
	return nil, err
}

// worthUpTo is the percentage of a layer up to which a delta is worth its making: on the way to another
// machine bytes cost more than on loopback.
func worthUpTo(host string) int {
	if name := hostname(host); name == "localhost" || net.ParseIP(name).IsLoopback() {
		return 12
	}
	return 50
}

func (r *Repository) delta(ctx context.Context, e *endpoint, path string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	resp, err := r.ask(ctx, e, http.MethodGet, path, r.pullScope())
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("ask registry %s for a delta: %w", r.name.Domain, err)
	}
	return newIdleBody(resp.Body, r.client.o.IdleTimeout, cancel), nil
}
