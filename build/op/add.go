package op

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"davit/build/tree"
	"davit/oci"
	"davit/oci/errdefs"
)

func destinationError(instruction string) error {
	return errdefs.Invalid("When using %s with more than one source file, the destination must be a directory and end with a /", instruction)
}

func hashStrings(parts ...string) string {
	sum := sha256.New()
	field(sum, parts...)
	return hex.EncodeToString(sum.Sum(nil))
}

// download fetches a remote source of ADD and adds it to c.
func (w *Worker) download(ctx context.Context, c *Copy, from string) error {
	name, err := remoteName(from, c.step.Dest)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return errdefs.Invalid("ADD failed: %w", err)
	}
	response, err := w.HTTP.Do(request)
	if err != nil {
		return fmt.Errorf("ADD failed: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errdefs.NotFound("ADD failed: failed to GET %s with status %s", from, response.Status)
	}
	real, err := w.keep(c, response.Body)
	if err != nil {
		return fmt.Errorf("ADD failed: fetch %s: %w", from, err)
	}
	modified, err := http.ParseTime(response.Header.Get("Last-Modified"))
	if err != nil {
		modified = time.Unix(0, 0)
	}
	file, err := hostFile(name, real, 0o600, modified)
	if err != nil {
		return err
	}
	c.addLone(file, true)
	return nil
}

// remoteName is what a download is called in a destination that is a directory.
func remoteName(from, dest string) (string, error) {
	u, err := url.Parse(from)
	if err != nil {
		return "", errdefs.Invalid("ADD failed: %w", err)
	}
	name := path.Base(u.Path)
	if u.Path == "" || strings.HasSuffix(u.Path, "/") || name == "." || name == ".." {
		if strings.HasSuffix(dest, "/") {
			return "", errdefs.Invalid("cannot determine filename for source %s", from)
		}
		return "download", nil
	}
	return name, nil
}

// keep writes a download to a temporary file, which c removes, and checks its sum.
func (w *Worker) keep(c *Copy, body io.Reader) (real string, err error) {
	f, err := os.CreateTemp(w.TempDir(), "download-")
	if err != nil {
		return "", err
	}
	c.cleanup = append(c.cleanup, func() error { return os.Remove(f.Name()) })
	defer func() { err = errors.Join(err, f.Close()) }()
	if c.step.Checksum != "" {
		want, err := oci.ParseDigest(c.step.Checksum)
		if err != nil {
			return "", errdefs.As(errdefs.ErrInvalid, err)
		}
		body = oci.Verify(body, oci.Descriptor{Digest: want, Size: -1})
	}
	if _, err := io.Copy(f, body); err != nil {
		return "", err
	}
	return f.Name(), nil
}

// isArchive says whether a file is a tar archive, in any compression, by its first header.
func isArchive(s source, decompress func(io.Reader) (io.ReadCloser, error)) bool {
	f, err := s.tree.Open(s.entry.Path)
	if err != nil {
		return false
	}
	defer f.Close()
	plain, err := decompress(f)
	if err != nil {
		return false
	}
	defer plain.Close()
	_, err = tar.NewReader(plain).Next()
	return err == nil
}

// extract unpacks an archive into the destination.
func (p *placement) extract(ctx context.Context, d *draft, s source) error {
	if _, err := d.directory(p.dest, p.newOwner()); err != nil {
		return err
	}
	f, err := s.tree.Open(s.entry.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, err := p.decompress(f)
	if err != nil {
		return fmt.Errorf("ADD failed: decompress %s: %w", s.name, err)
	}
	defer plain.Close()
	x := &extraction{placement: p, draft: d, source: s, reader: tar.NewReader(plain), known: map[string]place{}}
	x.source.own = true
	if err := x.all(ctx); err != nil {
		return fmt.Errorf("ADD failed: unpack %s: %w", s.name, err)
	}
	return nil
}

// extraction unpacks one archive. Names are resolved inside the root file system in the making, so
// whatever the archive holds, it reaches nothing else.
type extraction struct {
	*placement
	draft  *draft
	source source
	reader *tar.Reader
	known  map[string]place // directories by their name in the archive, as long as no link was made
}

func (x *extraction) all(ctx context.Context) error {
	for {
		h, err := x.reader.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := x.one(h); err != nil {
			return err
		}
	}
}

func (x *extraction) one(h *tar.Header) error {
	if slices.Contains(strings.Split(h.Name, "/"), "..") {
		return errdefs.Invalid("the entry %q leaves the destination", h.Name)
	}
	name := tree.Clean(h.Name)
	if name == "." {
		return nil
	}
	at, err := x.at(path.Dir(name))
	if err != nil {
		return err
	}
	e := x.entry(x.source, tree.TarEntry(name, h))
	switch h.Typeflag {
	case tar.TypeDir:
		_, err := x.draft.putDirectory(at, path.Base(name), e)
		return err
	case tar.TypeLink:
		return x.link(h, at, path.Base(name))
	}
	if e.Mode.Type() != 0 {
		clear(x.known) // a link may change where names lead
	}
	return x.draft.put(at, path.Base(name), e, func() (io.ReadCloser, error) { return io.NopCloser(x.reader), nil })
}

// at returns the directory of the destination with that name in the archive.
func (x *extraction) at(name string) (place, error) {
	if at, ok := x.known[name]; ok {
		return at, nil
	}
	at, err := x.draft.directory(path.Join(x.dest, name), x.newOwner())
	if err == nil {
		x.known[name] = at
	}
	return at, err
}

// link makes a hard link to a file that the archive brought before.
func (x *extraction) link(h *tar.Header, at place, name string) error {
	if slices.Contains(strings.Split(h.Linkname, "/"), "..") {
		return errdefs.Invalid("the hard link %q to %q leaves the destination", h.Name, h.Linkname)
	}
	target, err := tree.ResolveParent(x.draft.view(), path.Join(x.dest, tree.Clean(h.Linkname)))
	if err != nil {
		return err
	}
	real := filepath.Join(x.draft.upper, target)
	info, err := os.Lstat(real)
	if err != nil || info.IsDir() {
		return errdefs.Invalid("the entry %q is a hard link to %q, which is no file before it", h.Name, h.Linkname)
	}
	if err := x.draft.vacate(at, name); err != nil {
		return err
	}
	return os.Link(real, at.real+"/"+name)
}
