package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
	"davit/registry/webhook"
)

var errNoSuchPath = errors.New("no such path in the registry API, which begins with /v2/")

var errNotReady = errors.New("the store cannot be used now, see the registry's log")

// digest parses the request's argument.
func (r request) digest() (oci.Digest, error) {
	d, err := oci.ParseDigest(r.arg)
	if err != nil {
		return "", fail("DIGEST_INVALID", "%w", err)
	}
	return d, nil
}

// getBlob sends content; ranges and conditions are http.ServeContent's, the copying is sendfile's.
func (s *Server) getBlob(r request) error {
	d, err := r.digest()
	if err != nil {
		return err
	}
	size, err := r.repo.hasBlob(r.Context(), d)
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		r.blobHeader(d)
		http.ServeContent(r.w, r.Request, "", time.Time{}, io.NewSectionReader(nil, 0, size)) // which nobody reads
		return nil
	}
	if store, ok := s.store.(storage.Addresses); ok && s.options.RedirectBlobs {
		s.tellBlob(r, webhook.Pull, "", d)
		return r.redirect(store, d)
	}
	blob, err := s.store.OpenBlob(r.Context(), d)
	if err != nil {
		return unknown(err, "BLOB_UNKNOWN")
	}
	defer blob.Close()
	r.blobHeader(d)
	http.ServeContent(r.w, r.Request, "", time.Time{}, blob)
	s.tellBlob(r, webhook.Pull, "", d)
	return nil
}

// redirectValid is how long the address that a client is sent to is good for.
const redirectValid = 15 * time.Minute

// redirect sends the client to where the bytes lie; it may go there for each range.
func (r request) redirect(store storage.Addresses, d oci.Digest) error {
	address, err := store.BlobURL(r.Context(), d, redirectValid)
	if err != nil {
		return unknown(err, "BLOB_UNKNOWN")
	}
	r.w.Header().Set("Docker-Content-Digest", string(d))
	r.w.Header().Set("Cache-Control", "no-store")
	http.Redirect(r.w, r.Request, address, http.StatusTemporaryRedirect)
	return nil
}

func (r request) blobHeader(d oci.Digest) {
	header := r.w.Header()
	header.Set("Docker-Content-Digest", string(d))
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Etag", `"`+string(d)+`"`)
	header.Set("Cache-Control", "max-age=31536000, immutable")
}

// deleteBlob unlinks the blob from this repository; the collector removes what no repository links.
func (s *Server) deleteBlob(r request) error {
	d, err := r.digest()
	if err != nil {
		return err
	}
	if err := s.store.DeleteRecord(r.Context(), r.repo.blobKey(d)); err != nil {
		return unknown(err, "BLOB_UNKNOWN")
	}
	s.tell(r.Context(), webhook.Delete, webhook.Target{Repository: r.repo.name, Digest: d})
	r.w.WriteHeader(http.StatusAccepted)
	return nil
}

// startUpload mounts a blob from elsewhere, takes a whole one, or opens an upload.
func (s *Server) startUpload(r request) error {
	query := r.URL.Query()
	if mount := query.Get("mount"); mount != "" {
		done, err := s.mountBlob(r, mount, query.Get("from"))
		if done || err != nil {
			return err
		}
	}
	algorithm := query.Get("digest-algorithm")
	if digest := query.Get("digest"); digest != "" {
		algorithm, _, _ = strings.Cut(digest, ":")
	}
	if algorithm == "" {
		algorithm = "sha256"
	}
	if oci.Digest(algorithm+":").Hash() == nil {
		return fail("DIGEST_INVALID", "unsupported digest algorithm %q (sha256 and sha512 are supported)", algorithm)
	}
	if _, err := s.body(r, 0); err != nil {
		return err
	}
	id, err := s.store.CreateUpload(r.Context(), algorithm)
	if err != nil {
		return err
	}
	r.arg = id
	if query.Get("digest") != "" {
		return s.finishUpload(r)
	}
	return r.uploadProgress(0, http.StatusAccepted)
}

// mountBlob links a blob that another repository holds. A mount that cannot be done is not an error: the
// client is given an upload instead (distribution-spec, "Mounting a blob from another repository").
func (s *Server) mountBlob(r request, mount, from string) (done bool, err error) {
	d, err := oci.ParseDigest(mount)
	if err != nil {
		return false, fail("DIGEST_INVALID", "%w", err)
	}
	if from == "" || from == r.repo.name {
		return false, nil
	}
	if s.auth != nil {
		if _, err := s.auth.Authorize(r.w, r.Request, from, "pull"); err != nil {
			return false, nil
		}
	}
	size, err := s.repository(from).hasBlob(r.Context(), d)
	if err != nil {
		return false, ignoreMissing(err)
	}
	admitted, err := s.admit(r, map[oci.Digest]int64{d: size}, nil)
	if err != nil {
		return false, err
	}
	err = r.repo.linkBlob(r.Context(), d)
	if admitted(err == nil); err != nil {
		return false, err
	}
	s.tellBlob(r, webhook.Mount, from, d)
	return true, r.created("blobs", d)
}

// created answers 201 with where the new thing is.
func (r request) created(kind string, d oci.Digest) error {
	r.w.Header().Set("Location", "/v2/"+r.repo.name+"/"+kind+"/"+string(d))
	r.w.Header().Set("Docker-Content-Digest", string(d))
	r.w.WriteHeader(http.StatusCreated)
	return nil
}

func (r request) uploadProgress(end int64, status int) error {
	header := r.w.Header()
	header.Set("Location", "/v2/"+r.repo.name+"/blobs/uploads/"+url.PathEscape(r.arg))
	header.Set("Docker-Upload-UUID", r.arg)
	header.Set("Range", fmt.Sprintf("0-%d", max(0, end-1)))
	r.w.WriteHeader(status)
	return nil
}

func (s *Server) uploadStatus(r request) error {
	end, err := s.store.UploadOffset(r.Context(), r.arg)
	if err != nil {
		return unknown(err, "BLOB_UPLOAD_UNKNOWN")
	}
	return r.uploadProgress(end, http.StatusNoContent)
}

func (s *Server) cancelUpload(r request) error {
	if err := s.store.CancelUpload(r.Context(), r.arg); err != nil {
		return unknown(err, "BLOB_UPLOAD_UNKNOWN")
	}
	r.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) patchUpload(r request) error {
	end, err := s.append(r)
	if err != nil {
		return err
	}
	return r.uploadProgress(end, http.StatusAccepted)
}

// append adds the request's body to its upload. Content-Range, when given, must continue the upload and
// agree with the body's length; without it the body is a stream of any length.
func (s *Server) append(r request) (int64, error) {
	end, err := s.store.UploadOffset(r.Context(), r.arg)
	if err != nil {
		return 0, unknown(err, "BLOB_UPLOAD_UNKNOWN")
	}
	want := int64(-1)
	if header := r.Header.Get("Content-Range"); header != "" {
		first, last, err := parseRange(header)
		if err != nil {
			return end, fail("BLOB_UPLOAD_INVALID", "%w", err)
		}
		if first != end {
			r.w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, end-1)))
			return end, fail("RANGE_INVALID", "the upload has %d bytes, a chunk at %d does not continue it", end, first)
		}
		want = last - first + 1
		if r.ContentLength >= 0 && r.ContentLength != want {
			return end, fail("SIZE_INVALID", "Content-Range says %d bytes, Content-Length %d", want, r.ContentLength)
		}
	}
	body, err := s.body(r, end)
	if err != nil {
		return end, s.refuseUpload(r, err)
	}
	newEnd, err := s.store.AppendUpload(r.Context(), r.arg, end, body)
	switch {
	case errors.Is(err, errdefs.ErrForbidden):
		return newEnd, s.refuseUpload(r, err)
	case errors.Is(err, errdefs.ErrConflict):
		return newEnd, fail("RANGE_INVALID", "%w", err)
	case err != nil && (r.Context().Err() != nil || errors.Is(err, io.ErrUnexpectedEOF)):
		return newEnd, fail("BLOB_UPLOAD_INVALID", "the connection ended inside a chunk: %w", err)
	case err != nil:
		return newEnd, unknown(err, "BLOB_UPLOAD_UNKNOWN")
	case want >= 0 && newEnd-end != want:
		return newEnd, fail("SIZE_INVALID", "Content-Range says %d bytes, %d came", want, newEnd-end)
	}
	return newEnd, nil
}

func parseRange(header string) (first, last int64, err error) {
	a, b, ok := strings.Cut(strings.TrimPrefix(header, "bytes "), "-")
	b, _, _ = strings.Cut(b, "/")
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	if !ok || err1 != nil || err2 != nil || first < 0 || last < first-1 {
		return 0, 0, fmt.Errorf("invalid Content-Range %q: want first-last", header)
	}
	return first, last, nil
}

// finishUpload appends what the body holds and turns the upload into a blob of this repository.
func (s *Server) finishUpload(r request) error {
	d, err := oci.ParseDigest(r.URL.Query().Get("digest"))
	if err != nil {
		return fail("DIGEST_INVALID", "%w", err)
	}
	if r.ContentLength != 0 || r.Header.Get("Content-Range") != "" {
		if _, err := s.append(r); err != nil {
			return err
		}
	}
	size, err := s.store.UploadOffset(r.Context(), r.arg)
	if err != nil {
		return unknown(err, "BLOB_UPLOAD_UNKNOWN")
	}
	done, err := s.admit(r, map[oci.Digest]int64{d: size}, nil)
	if err != nil {
		return s.refuseUpload(r, err)
	}
	err = s.commit(r, d)
	if done(err == nil); err != nil {
		return err
	}
	s.tellBlob(r, webhook.Push, "", d)
	return r.created("blobs", d)
}

// commit makes an upload a blob of the repository.
func (s *Server) commit(r request, d oci.Digest) error {
	_, err := s.store.CommitUpload(r.Context(), r.arg, d)
	switch {
	case errors.Is(err, errdefs.ErrInvalid):
		return fail("DIGEST_INVALID", "%w", err)
	case errors.Is(err, errdefs.ErrConflict):
		return fail("BLOB_UPLOAD_INVALID", "%w", err)
	case err != nil:
		return unknown(err, "BLOB_UPLOAD_UNKNOWN")
	}
	return r.repo.linkBlob(r.Context(), d)
}
