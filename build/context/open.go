// Package context opens build contexts: the files that the user sent for COPY and ADD.
//
//	ReadTar    an archive, the body of POST /build
//	OpenDir    a directory of the host
//	Fetch      an archive, or a lone Dockerfile, behind an http URL
//	Ignored    any of them without what .dockerignore excludes
package context

import (
	"bytes"
	stdcontext "context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"syscall"

	"davit/build/tree"
	"davit/oci/errdefs"
)

// Context is an open build context.
type Context interface {
	tree.Tree
	io.Closer
}

// Decompress returns the plain stream of one in any compression, recognised by its first bytes.
type Decompress func(io.Reader) (io.ReadCloser, error)

// maxDockerfile bounds what is read into memory for one Dockerfile.
const maxDockerfile = 8 << 20

// openSpool makes a nameless file in dir (open(2), O_TMPFILE, Linux 3.11).
func openSpool(dir string) (*os.File, error) {
	const oTmpfile = 0x400000 | syscall.O_DIRECTORY
	f, err := os.OpenFile(dir, os.O_RDWR|oTmpfile, 0o600)
	if err == nil {
		return f, nil
	}
	f, err = os.CreateTemp(dir, "context-")
	if err != nil {
		return nil, fmt.Errorf("keep build context: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("keep build context: %w", err)
	}
	return f, nil
}

// Fetch opens the remote build context of `docker build URL`. A tar archive is the context; anything
// else is a Dockerfile with an empty context. Repositories of git are refused: davit runs no git.
func Fetch(ctx stdcontext.Context, client *http.Client, url, dir string, decompress Decompress) (Context, error) {
	if IsGit(url) {
		return nil, errdefs.Invalid("unable to prepare context: git repositories are not supported as build contexts: %s: clone it and build the directory", url)
	}
	if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
		return nil, errdefs.Invalid("unable to prepare context: remote context %q is neither an http nor an https URL", url)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("fetch build context: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, errdefs.Invalid("error downloading remote context %s: unexpected status %s", url, response.Status)
	}
	body, err := decompress(response.Body)
	if err != nil {
		return nil, fmt.Errorf("decompress build context: %w", err)
	}
	defer body.Close()
	return archiveOrDockerfile(body, dir)
}

// archiveOrDockerfile looks for tar's magic number at its place in the first header.
func archiveOrDockerfile(r io.Reader, dir string) (Context, error) {
	head := make([]byte, 512)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return nil, fmt.Errorf("read build context: %w", err)
	}
	r = io.MultiReader(bytes.NewReader(head[:n]), r)
	if n == len(head) && bytes.HasPrefix(head[257:], []byte("ustar")) {
		return ReadTar(r, dir)
	}
	content, err := io.ReadAll(io.LimitReader(r, maxDockerfile+1))
	if err != nil {
		return nil, fmt.Errorf("read Dockerfile: %w", err)
	}
	if len(content) > maxDockerfile {
		return nil, errdefs.Invalid("the remote build context is neither a tar archive nor a Dockerfile")
	}
	return single("Dockerfile", content, dir)
}

// single is a context with one file.
func single(name string, content []byte, dir string) (*Tar, error) {
	spool, err := openSpool(dir)
	if err != nil {
		return nil, err
	}
	t := &Tar{spool: spool, nodes: map[string]*node{}}
	t.nodes["."] = &node{entry: tree.Entry{Path: ".", Mode: fs.ModeDir | 0o755}}
	if _, err := spool.Write(content); err != nil {
		spool.Close()
		return nil, fmt.Errorf("keep %s: %w", name, err)
	}
	n := &node{entry: tree.Entry{Path: name, Mode: 0o644, Size: int64(len(content))}}
	n.sum = sha256.Sum256(content)
	return t, t.add(n)
}

// IsGit says whether a remote context names a git repository, as docker build decides it.
func IsGit(url string) bool {
	for _, prefix := range []string{"git://", "git@", "ssh://", "github.com/"} {
		if strings.HasPrefix(url, prefix) {
			return true
		}
	}
	if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
		return false
	}
	repository, _, _ := strings.Cut(url, "#")
	return strings.HasSuffix(repository, ".git")
}
