package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/cache"
	"davit/registry/storage/dir"
)

// UseCache makes the registry a pull-through cache too, of the upstreams in o. It is to be called before
// the first request. Where the store's uploads cannot be read while they grow, content arrives in a
// directory of this machine and goes to the store when it is whole.
func (s *Server) UseCache(o cache.Options, arrivals string) (err error) {
	o.Log = s.log
	here, ok := s.store.(cache.Store)
	if ok {
		o.Store, o.Shelf = here, shelf{s, nil}
	} else {
		beside, err := dir.Open(arrivals)
		if err != nil {
			return fmt.Errorf("open directory for what arrives from upstreams: %w", err)
		}
		o.Store, o.Shelf = beside, shelf{s, beside}
	}
	s.cache, err = cache.New(o)
	return err
}

// closeCache ends the fetches; their bytes stay.
func (s *Server) closeCache() {
	if s.cache != nil {
		s.cache.Close()
	}
}

// target says which upstream's repository a request is about, if any.
func (s *Server) target(asked *route, r *http.Request, name string) (cache.Target, bool) {
	switch asked {
	case manifestRoute, blobRoute, uploadsRoute, uploadRoute, tagsRoute, referrersRoute:
	default:
		return cache.Target{}, false
	}
	if s.cache == nil {
		return cache.Target{}, false
	}
	return s.cache.Match(r, name, func() bool {
		return action(r.Method) != "pull" || s.repository(name).exists(r.Context()) == nil
	})
}

// fill brings from the upstream what a request is about, and answers it; deleting is forgetting the copy.
func (s *Server) fill(r request, asked *route, t cache.Target) error {
	if action(r.Method) == "push" {
		return fail("UNSUPPORTED", "%s is a copy of what %s has: push there, or under another name", t.Name, t.Upstream())
	}
	if r.Method == http.MethodDelete {
		return asked.methods[r.Method](s, r)
	}
	switch asked {
	case manifestRoute:
		return s.fillManifest(r, t)
	case blobRoute:
		return s.fillBlob(r, t)
	case tagsRoute:
		return s.fillTags(r, t)
	case referrersRoute:
		return s.fillReferrers(r, t)
	}
	return asked.methods[r.Method](s, r)
}

func (s *Server) fillManifest(r request, t cache.Target) error {
	if err := r.checkName(); err != nil {
		return err
	}
	answer, err := s.cache.Manifest(r.Context(), t, r.arg)
	if err != nil {
		return r.upstreamFailure("MANIFEST_UNKNOWN", err)
	}
	r.markStale(answer.Stale)
	r.arg = string(answer.Digest) // not the tag, which may have moved since
	return s.getManifest(r)
}

// checkName keeps from the upstream what cannot be a tag or a digest.
func (r request) checkName() (err error) {
	if strings.Contains(r.arg, ":") {
		_, err = r.digest()
	} else if bad := ref.CheckTag(r.arg); bad != nil {
		err = fail("MANIFEST_UNKNOWN", "%w", bad)
	}
	return err
}

// markStale tells the client that what it gets may be old (RFC 7234, section 5.5).
func (r request) markStale(why error) {
	if why != nil {
		r.w.Header().Add("Warning", `110 - "Response is Stale"`)
		r.w.Header().Add("Warning", fmt.Sprintf(`111 - %q`, "Revalidation Failed: "+strings.ToValidUTF8(why.Error(), "?")))
	}
}

// upstreamFailure says in the registry's terms why there is nothing to serve.
func (r request) upstreamFailure(code string, err error) error {
	if wait := cache.RetryAfter(err); wait > 0 {
		r.w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds()+0.999)))
	}
	switch {
	case errors.Is(err, errdefs.ErrNotFound), errors.Is(err, errdefs.ErrUnauthorized), errors.Is(err, errdefs.ErrForbidden):
		return &failure{code, http.StatusNotFound, err} // the upstream does not give it
	case errors.Is(err, errdefs.ErrTooManyRequest):
		return &failure{"TOOMANYREQUESTS", http.StatusTooManyRequests, err}
	case errors.Is(err, errdefs.ErrUnavailable):
		return &failure{"UNAVAILABLE", http.StatusServiceUnavailable, err}
	case errors.Is(err, errdefs.ErrDataLoss), errors.Is(err, errdefs.ErrInvalid):
		return &failure{"UNKNOWN", http.StatusBadGateway, err}
	}
	return err
}

func (s *Server) fillBlob(r request, t cache.Target) error {
	d, err := r.digest()
	if err != nil {
		return err
	}
	if _, err = r.repo.hasBlob(r.Context(), d); !errors.Is(err, errdefs.ErrNotFound) {
		if err == nil {
			s.cache.Counters.Hits.Add(1)
			err = s.getBlob(r)
		}
		return err
	}
	if r.Method == http.MethodHead {
		return s.headCopy(r, t, d)
	}
	for attempt := 1; ; attempt++ {
		stream, err := s.cache.Blob(r.Context(), t, d)
		if err != nil {
			return r.upstreamFailure("BLOB_UNKNOWN", err)
		}
		if stream != nil {
			err = s.follow(r, d, stream)
			return errors.Join(err, stream.Close())
		}
		// What was just fetched may be evicted already.
		if err = s.getBlob(r); !errors.Is(err, errdefs.ErrNotFound) || attempt == 3 {
			return err
		}
	}
}

// headCopy answers HEAD for a blob that the upstream has.
func (s *Server) headCopy(r request, t cache.Target, d oci.Digest) error {
	size, err := s.cache.BlobSize(r.Context(), t, d)
	if err != nil {
		return r.upstreamFailure("BLOB_UNKNOWN", err)
	}
	r.blobHeader(d)
	r.w.Header().Set("Accept-Ranges", "bytes")
	r.w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	return nil
}

// follow sends a blob while it arrives. Only a range to the blob's end can be sent before all is verified:
// its last byte waits for that.
func (s *Server) follow(r request, d oci.Digest, stream *cache.Stream) error {
	from, ok := openRange(r.Header.Get("Range"), stream.Size)
	if !ok || r.Header.Get("If-None-Match") != "" {
		if err := stream.Wait(); err != nil {
			return r.upstreamFailure("BLOB_UNKNOWN", err)
		}
		return s.getBlob(r)
	}
	stream.Skip(from)
	r.blobHeader(d)
	header := r.w.Header()
	header.Set("Accept-Ranges", "bytes")
	header.Set("Content-Length", strconv.FormatInt(stream.Size-from, 10))
	if r.Header.Get("Range") != "" {
		header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, stream.Size-1, stream.Size))
		r.w.WriteHeader(http.StatusPartialContent)
	}
	if err := copyArriving(r.w, stream); err != nil {
		s.log.WarnContext(r.Context(), "blob broke off", "repository", r.repo.name, "digest", d, "error", err)
		_ = stream.Close()
		panic(http.ErrAbortHandler) // the client sees that it is not whole
	}
	return nil
}

// openRange reads "bytes=N-", or no range at all.
func openRange(header string, size int64) (from int64, ok bool) {
	if header == "" {
		return 0, true
	}
	digits, ok := strings.CutPrefix(header, "bytes=")
	digits, open := strings.CutSuffix(digits, "-")
	from, err := strconv.ParseInt(digits, 10, 64)
	return from, ok && open && err == nil && from >= 0 && from < size
}

// copyArriving hands on what there is before it waits for more.
func copyArriving(w http.ResponseWriter, stream *cache.Stream) error {
	out := http.NewResponseController(w)
	buffer := make([]byte, 128<<10)
	for {
		n, err := stream.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case !stream.Behind():
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}

func (s *Server) fillTags(r request, t cache.Target) error {
	tags, err := s.cache.Tags(r.Context(), t)
	if err != nil {
		if missing := r.repo.exists(r.Context()); missing != nil {
			return r.upstreamFailure("NAME_UNKNOWN", err)
		}
		r.markStale(err)
		return s.listTags(r)
	}
	if tags, err = r.page(tags); err != nil {
		return err
	}
	return r.json("application/json", map[string]any{"name": r.repo.name, "tags": tags})
}

func (s *Server) fillReferrers(r request, t cache.Target) error {
	d, err := r.digest()
	if err != nil {
		return err
	}
	all, err := s.cache.Referrers(r.Context(), t, d)
	if err != nil {
		if !errors.Is(err, errdefs.ErrNotFound) {
			r.markStale(err)
		}
		return s.listReferrers(r)
	}
	return r.referrers(all)
}
