// Package buildcontext makes the tar that POST /build takes from a directory, a Dockerfile and what
// .dockerignore says.
package buildcontext

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"davit/oci/errdefs"
)

const (
	// DefaultDockerfile is read when no other is named.
	DefaultDockerfile = "Dockerfile"
	ignoreFile        = ".dockerignore"
)

// Context is a directory to send.
type Context struct {
	// Dockerfile is the name of the Dockerfile in the tar.
	Dockerfile string

	dir     string
	ignored *patternmatcher.PatternMatcher
	extra   []file // in the place of the directory's own
}

type file struct {
	name    string
	content []byte
}

// New reads .dockerignore and finds the Dockerfile: dockerfile is a path, in the directory or elsewhere; empty
// for the default; content, if not nil, is the Dockerfile itself.
func New(dir, dockerfile string, content []byte) (*Context, error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdefs.Invalid("unable to prepare context: path %q not found", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("unable to prepare context: %w", err)
	}
	if !info.IsDir() {
		return nil, errdefs.Invalid("unable to prepare context: context must be a directory: %s", dir)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	c := &Context{dir: dir}
	beside, err := c.findDockerfile(dockerfile, content)
	if err != nil {
		return nil, err
	}
	if err := c.readIgnored(beside); err != nil {
		return nil, err
	}
	return c, nil
}

// findDockerfile sets c.Dockerfile and returns where an ignore file of its own would be ("" for nowhere). One
// from outside is sent under a name made of its content, so that the same one has the same name again.
func (c *Context) findDockerfile(dockerfile string, content []byte) (beside string, err error) {
	if content != nil {
		c.addForeign(content)
		return "", nil
	}
	if dockerfile == "" {
		dockerfile = filepath.Join(c.dir, DefaultDockerfile)
	}
	path, err := filepath.Abs(dockerfile)
	if err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("unable to prepare context: unable to evaluate symlinks in Dockerfile path: %w", err)
	}
	if name, ok := within(c.dir, path); ok && c.holds(resolved) {
		c.Dockerfile = name
		return path, nil
	}
	if name, ok := within(c.dir, resolved); ok {
		c.Dockerfile = name
		return resolved, nil
	}
	if content, err = os.ReadFile(resolved); err != nil {
		return "", fmt.Errorf("unable to prepare context: read Dockerfile: %w", err)
	}
	c.addForeign(content)
	return path, nil
}

func (c *Context) addForeign(content []byte) {
	sum := sha256.Sum256(content)
	c.Dockerfile = ".dockerfile." + hex.EncodeToString(sum[:10])
	c.extra = append(c.extra, file{c.Dockerfile, content})
}

// within returns path relative to dir, with slashes, if it is below.
func within(dir, path string) (string, bool) {
	name, err := filepath.Rel(dir, path)
	if err != nil || !filepath.IsLocal(name) {
		return "", false
	}
	return filepath.ToSlash(name), true
}

// holds reports whether a resolved path is in the context.
func (c *Context) holds(path string) bool { _, ok := within(c.dir, path); return ok }

// readIgnored reads <Dockerfile>.dockerignore, else .dockerignore. A Dockerfile from outside is added to
// what the engine leaves out of COPY, by the .dockerignore that is sent.
func (c *Context) readIgnored(dockerfile string) error {
	var patterns []string
	var text []byte
	candidates := []string{filepath.Join(c.dir, ignoreFile)}
	if dockerfile != "" {
		candidates = []string{dockerfile + ignoreFile, candidates[0]}
	}
	for _, path := range candidates {
		var err error
		if text, err = os.ReadFile(path); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return fmt.Errorf("unable to prepare context: %w", err)
		}
		if patterns, err = ignorefile.ReadAll(bytes.NewReader(text)); err != nil {
			return errdefs.Invalid("unable to prepare context: read %s: %w", path, err)
		}
		break
	}
	if len(c.extra) > 0 {
		text = append(bytes.TrimRight(text, "\n"), "\n"+c.Dockerfile+"\n"+ignoreFile+"\n"...)
		c.extra = append(c.extra, file{ignoreFile, text})
	}
	// The engine needs both; it does not let COPY have them if the patterns say so.
	patterns = append(patterns, "!"+c.Dockerfile, "!"+ignoreFile)
	var err error
	if c.ignored, err = patternmatcher.New(patterns); err != nil {
		return errdefs.Invalid("unable to prepare context: invalid .dockerignore: %w", err)
	}
	return nil
}

// WriteTo writes the tar. Owners are left out, as the engine gives files to root; sockets are too.
func (c *Context) WriteTo(w io.Writer) (n int64, err error) {
	counter := &counter{w: w}
	t := tar.NewWriter(counter)
	walk := walker{context: c, tar: t, matched: map[string]patternmatcher.MatchInfo{}}
	if err := filepath.WalkDir(c.dir, walk.visit); err != nil {
		return counter.n, fmt.Errorf("send build context: %w", err)
	}
	for _, f := range c.extra {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o600, Size: int64(len(f.content))}
		if err := t.WriteHeader(header); err != nil {
			return counter.n, fmt.Errorf("send build context: %w", err)
		}
		if _, err := t.Write(f.content); err != nil {
			return counter.n, fmt.Errorf("send build context: %w", err)
		}
	}
	return counter.n, t.Close()
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// walker writes the files of a walk that are not ignored.
type walker struct {
	context *Context
	tar     *tar.Writer
	matched map[string]patternmatcher.MatchInfo // of directories
}

func (w *walker) visit(path string, entry fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	name, _ := within(w.context.dir, path)
	if name == "." || w.context.replaces(name) {
		return nil
	}
	ignored, info, err := w.context.ignored.MatchesUsingParentResults(name, w.matched[filepath.Dir(name)])
	if err != nil {
		return err
	}
	if entry.IsDir() {
		w.matched[name] = info
	}
	switch {
	case ignored && entry.IsDir() && !w.context.readmits(name):
		return fs.SkipDir
	case ignored, entry.Type()&fs.ModeSocket != 0:
		return nil
	}
	return w.add(path, name, entry)
}

func (c *Context) replaces(name string) bool {
	for _, f := range c.extra {
		if f.name == name {
			return true
		}
	}
	return false
}

// readmits reports whether a "!" pattern may match something below an ignored directory.
func (c *Context) readmits(dir string) bool {
	for _, pattern := range c.ignored.Patterns() {
		if !pattern.Exclusion() {
			continue
		}
		text := strings.TrimPrefix(pattern.String(), "/")
		if strings.HasPrefix(text+"/", dir+"/") || mayMatchBelow(text, dir) {
			return true
		}
	}
	return false
}

// mayMatchBelow compares word by word, up to a pattern's first "**".
func mayMatchBelow(pattern, dir string) bool {
	words := strings.Split(pattern, "/")
	for i, part := range strings.Split(dir, "/") {
		if i >= len(words) {
			return false
		}
		if strings.Contains(words[i], "**") {
			return true
		}
		if ok, err := filepath.Match(words[i], part); err == nil && !ok {
			return false
		}
	}
	return true
}

// add writes one file. What vanished since the directory was read is left out.
func (w *walker) add(path, name string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	header.Name = name
	if info.IsDir() {
		header.Name += "/"
	}
	header.Uid, header.Gid, header.Uname, header.Gname = 0, 0, "", ""
	if !info.Mode().IsRegular() {
		return w.tar.WriteHeader(header)
	}
	if capability := fileCapability(path); capability != "" {
		header.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": capability}
	}
	return w.copy(path, header)
}

func (w *walker) copy(path string, header *tar.Header) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.tar.WriteHeader(header); err != nil {
		return err
	}
	n, err := io.Copy(w.tar, io.LimitReader(f, header.Size))
	if err == nil && n < header.Size {
		err = fmt.Errorf("%s became shorter while it was read", path)
	}
	return err
}

// fileCapability is the one extended attribute that a build keeps: capabilities(7).
func fileCapability(path string) string {
	var buffer [64]byte
	n, err := syscall.Getxattr(path, "security.capability", buffer[:])
	if err != nil {
		return ""
	}
	return string(buffer[:n])
}

// FromDockerfile is the tar of a context that holds a Dockerfile and nothing else.
func FromDockerfile(content []byte) (io.Reader, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: DefaultDockerfile, Mode: 0o600, Size: int64(len(content))}); err != nil {
		return nil, err
	}
	if _, err := t.Write(content); err != nil {
		return nil, err
	}
	return &b, t.Close()
}

// HeadLength is how many bytes IsArchive looks at.
const HeadLength = 512

// IsArchive tells a tar, compressed or not, from a Dockerfile by its first HeadLength bytes.
func IsArchive(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b\x08", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil
}
