package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/auth/challenge"
)

// Has says whether the repository itself, not a mirror, holds a blob or manifest.
func (r *Repository) Has(ctx context.Context, desc oci.Descriptor) (bool, error) {
	q := request{method: http.MethodHead, path: "blobs/" + string(desc.Digest), scopes: r.pushScope(), accept: []int{http.StatusOK}}
	if known(desc.MediaType) {
		q.path = "manifests/" + string(desc.Digest)
		q.header = http.Header{"Accept": manifestTypes()}
	}
	found := false
	err := r.retry(ctx, func() error {
		resp, err := r.do(ctx, r.origin(), q)
		if err == nil {
			found = true
			return resp.Body.Close()
		}
		var refusal *Error
		if errors.As(err, &refusal) && refusal.Status == http.StatusNotFound {
			return nil
		}
		return err
	})
	return found, explainPush(r.name, err)
}

// Mount makes a blob of the repository from appear in this one. False: the registry does not know it
// there, or cannot; an upload that it opened instead is given up.
func (r *Repository) Mount(ctx context.Context, desc oci.Descriptor, from ref.Ref) (bool, error) {
	if from.Domain != r.name.Domain || from.Path == r.name.Path {
		return false, nil
	}
	query := url.Values{"mount": {string(desc.Digest)}, "from": {from.Path}}
	mounted := false
	err := r.retry(ctx, func() error {
		resp, err := r.do(ctx, r.origin(), request{
			method: http.MethodPost, path: "blobs/uploads/?" + query.Encode(),
			scopes: append(r.pushScope(), challenge.PullScope(from.Path)), accept: []int{http.StatusCreated, http.StatusAccepted},
		})
		if err != nil {
			return err
		}
		mounted = resp.StatusCode == http.StatusCreated
		if !mounted {
			r.abandon(ctx, resp)
		}
		return resp.Body.Close()
	})
	if err != nil && ctx.Err() == nil {
		return false, nil // no right to read there: upload instead
	}
	return mounted, err
}

// abandon gives back an upload that is not needed. A registry that knows no cancel forgets it in time.
func (r *Repository) abandon(ctx context.Context, opened *http.Response) {
	location, err := opened.Location()
	if err != nil {
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, location.String(), nil)
	if err != nil {
		return
	}
	if resp, err := r.origin().send(ctx, req, r.pushScope()); err == nil {
		resp.Body.Close()
	}
}

// Upload sends a blob: in one PUT when digest and size are known, else by a streamed PATCH and a PUT
// that names the digest of what went by. It returns digest and size.
func (r *Repository) Upload(ctx context.Context, desc oci.Descriptor, open func() (io.ReadCloser, error)) (oci.Descriptor, error) {
	sent := desc
	err := r.retry(ctx, func() error {
		location, err := r.beginUpload(ctx)
		if err != nil {
			return err
		}
		content, err := open()
		if err != nil {
			return errdefs.As(errdefs.ErrDataLoss, fmt.Errorf("open blob to upload: %w", err))
		}
		defer content.Close()
		if desc.Digest != "" {
			return r.putBlob(ctx, location, desc, content)
		}
		sent.Digest, sent.Size, err = r.streamBlob(ctx, location, content)
		return err
	})
	return sent, explainPush(r.name, err)
}

func (r *Repository) beginUpload(ctx context.Context) (*url.URL, error) {
	resp, err := r.do(ctx, r.origin(), request{
		method: http.MethodPost, path: "blobs/uploads/", scopes: r.pushScope(), accept: []int{http.StatusAccepted},
	})
	if err != nil {
		return nil, err
	}
	return nextLocation(resp)
}

// nextLocation closes a response and returns where the upload goes on.
func nextLocation(resp *http.Response) (*url.URL, error) {
	resp.Body.Close()
	location, err := resp.Location()
	if err != nil {
		return nil, errdefs.Invalid("registry %s gave no upload location: %w", resp.Request.URL.Host, err)
	}
	return location, nil
}

func withDigest(location *url.URL, digest oci.Digest) string {
	u := *location
	q := u.Query()
	q.Set("digest", string(digest))
	u.RawQuery = q.Encode()
	return u.String()
}

func (r *Repository) putBlob(ctx context.Context, location *url.URL, desc oci.Descriptor, content io.Reader) error {
	resp, err := r.sendBody(ctx, http.MethodPut, withDigest(location, desc.Digest), io.LimitReader(content, desc.Size), desc.Size, http.StatusCreated)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (r *Repository) streamBlob(ctx context.Context, location *url.URL, content io.Reader) (oci.Digest, int64, error) {
	sum := &counted{r: content, hash: oci.Digest("sha256:").Hash()}
	resp, err := r.sendBody(ctx, http.MethodPatch, location.String(), sum, -1, http.StatusAccepted, http.StatusNoContent)
	if err != nil {
		return "", 0, err
	}
	if location, err = nextLocation(resp); err != nil {
		return "", 0, err
	}
	digest := oci.SumDigest("sha256", sum.hash)
	resp, err = r.sendBody(ctx, http.MethodPut, withDigest(location, digest), http.NoBody, 0, http.StatusCreated)
	if err != nil {
		return "", 0, err
	}
	return digest, sum.n, resp.Body.Close()
}

// sendBody sends a body that cannot be sent twice; the token for it was got by the POST before. The
// idle time runs while bytes wait to be sent, not while the caller makes them.
func (r *Repository) sendBody(ctx context.Context, method, to string, content io.Reader, size int64, accept ...int) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body := &outgoing{r: content, idle: r.client.o.IdleTimeout}
	body.timer = time.AfterFunc(body.idle, func() { cancel(errIdle) })
	defer body.timer.Stop()
	req, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return nil, fmt.Errorf("upload: %w", err)
	}
	req.ContentLength = size
	if size == 0 {
		req.Body = http.NoBody
		body.timer.Stop()
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := r.origin().send(ctx, req, r.pushScope())
	if failed := body.failure(); failed != nil {
		return nil, errdefs.As(errdefs.ErrDataLoss, fmt.Errorf("read blob to upload: %w", failed))
	}
	if err != nil {
		return nil, err
	}
	if resp, err = checked(resp, accept...); err != nil {
		return nil, err
	}
	return drained(resp)
}

// outgoing is a request body that restarts an idle timer with each read, and remembers a failure of its
// source, which is not worth another attempt.
type outgoing struct {
	r     io.Reader
	idle  time.Duration
	timer *time.Timer

	mu     sync.Mutex
	failed error
}

// Read implements io.Reader.
func (o *outgoing) Read(p []byte) (int, error) {
	o.timer.Stop()
	n, err := o.r.Read(p)
	if err == nil {
		o.timer.Reset(o.idle)
		return n, nil
	}
	if err != io.EOF {
		o.mu.Lock()
		o.failed = err
		o.mu.Unlock()
	}
	return n, err
}

func (o *outgoing) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// drained reads the short rest of a response, so that it outlives its context.
func drained(resp *http.Response) (*http.Response, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return resp, nil
}

// PutManifest stores a manifest or index under a tag, or under its digest when tag is empty.
func (r *Repository) PutManifest(ctx context.Context, tag string, desc oci.Descriptor, content []byte) error {
	if tag == "" {
		tag = string(desc.Digest)
	}
	err := r.retry(ctx, func() error {
		base, err := r.origin().reach(ctx)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, base.String()+"/v2/"+r.name.Path+"/manifests/"+tag, bytes.NewReader(content))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", desc.MediaType)
		resp, err := r.origin().send(ctx, req, r.pushScope())
		if err != nil {
			return err
		}
		if resp, err = checked(resp, http.StatusCreated, http.StatusOK, http.StatusAccepted); err != nil {
			return err
		}
		return resp.Body.Close()
	})
	return explainPush(r.name, err)
}

// counted hashes and counts what is read through it.
type counted struct {
	r    io.Reader
	hash hash.Hash
	n    int64
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.hash.Write(p[:n])
	c.n += int64(n)
	return n, err
}
