package cli

import (
	"archive/tar"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"davit/api/client"
	"davit/oci/errdefs"
)

// copying is one cp.
type copying struct {
	app           *app
	archive       bool // keep owners
	follow, quiet bool
}

func (a *app) cpCommand() *cobra.Command {
	c := copying{app: a}
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tdavit cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files/folders between a container and the local filesystem",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, source, fromContainer := containerPath(args[0])
			to, target, toContainer := containerPath(args[1])
			switch {
			case fromContainer && toContainer:
				return errors.New("copying between containers is not supported")
			case fromContainer:
				return c.out(cmd.Context(), from, source, args[1])
			case toContainer:
				return c.in(cmd.Context(), args[0], to, target)
			}
			return errors.New("must specify at least one container source")
		},
	}
	cmd.Flags().BoolVarP(&c.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	cmd.Flags().BoolVarP(&c.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	cmd.Flags().BoolVarP(&c.quiet, "quiet", "q", false, "Suppress progress output during copy")
	return cmd
}

// containerPath splits CONTAINER:PATH; a path that begins with "/" or "." is local.
func containerPath(arg string) (name, file string, ok bool) {
	if arg == "-" || strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, ".") {
		return "", arg, false
	}
	name, file, ok = strings.Cut(arg, ":")
	return name, file, ok
}

func archiveRequest(method, name, file string) client.Request {
	return client.Request{Method: method, Path: "/containers/" + url.PathEscape(name) + "/archive", Query: url.Values{"path": {file}}}
}

// stat asks what a path in a container is.
func (c copying) stat(ctx context.Context, name, file string) (container.PathStat, error) {
	var stat container.PathStat
	engine, err := c.app.client()
	if err != nil {
		return stat, err
	}
	response, err := engine.Do(ctx, archiveRequest("HEAD", name, file))
	if err != nil {
		return stat, explain(err, name, file)
	}
	defer response.Body.Close()
	return decodeStat(response)
}

// explain gives an answer without a body, as HEAD's is, docker's sentence.
func explain(err error, name, file string) error {
	if errors.Is(err, errdefs.ErrNotFound) && !strings.Contains(err.Error(), "No such container") {
		return errdefs.NotFound("Error response from daemon: Could not find the file %s in container %s", file, name)
	}
	return err
}

func decodeStat(response *client.Response) (container.PathStat, error) {
	var stat container.PathStat
	text, err := base64.StdEncoding.DecodeString(response.Header["X-Docker-Container-Path-Stat"])
	if err == nil {
		err = json.Unmarshal(text, &stat)
	}
	if err != nil {
		return stat, fmt.Errorf("read the engine's description of the file: %w", err)
	}
	return stat, nil
}

// out copies from a container.
func (c copying) out(ctx context.Context, name, source, target string) error {
	if c.follow {
		if stat, err := c.stat(ctx, name, source); err == nil && stat.LinkTarget != "" {
			if source = stat.LinkTarget; !path.IsAbs(source) {
				source = path.Join(path.Dir(source), stat.LinkTarget)
			}
		}
	}
	engine, err := c.app.client()
	if err != nil {
		return err
	}
	response, err := engine.Do(ctx, archiveRequest("GET", name, source))
	if err != nil {
		return explain(err, name, source)
	}
	defer response.Body.Close()
	if target == "-" {
		_, err = copyTo(c.app.out, response.Body)
		return err
	}
	stat, err := decodeStat(response)
	if err != nil {
		return err
	}
	root, err := localTarget(target, stat, strings.HasSuffix(source, "/."))
	if err != nil {
		return err
	}
	if err := extract(response.Body, root, c.archive); err != nil {
		return err
	}
	if !c.quiet && isTerminal(c.app.err) {
		fmt.Fprintf(c.app.err, "Successfully copied %s:%s to %s\n", name, source, target)
	}
	return nil
}

// localTarget returns the path that the archive's first entry becomes.
func localTarget(target string, stat container.PathStat, contents bool) (string, error) {
	info, err := os.Stat(target)
	switch {
	case err == nil && info.IsDir() && contents:
		return target, nil
	case err == nil && info.IsDir():
		return filepath.Join(target, path.Base(stat.Name)), nil
	case err == nil && stat.Mode.IsDir():
		return "", fmt.Errorf("cannot copy a directory to the file %s", target)
	case err == nil:
		return target, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	case strings.HasSuffix(target, "/") && !stat.Mode.IsDir():
		return "", fmt.Errorf("destination directory %s does not exist", target)
	}
	if _, err := os.Stat(filepath.Dir(filepath.Clean(target))); err != nil {
		return "", fmt.Errorf("invalid output path: directory %q does not exist", filepath.Dir(filepath.Clean(target)))
	}
	return target, nil
}

// extract writes an archive whose first name becomes root. Names and links cannot lead out of root's
// parent: os.Root refuses to leave it.
func extract(r io.Reader, root string, owners bool) error {
	parent, err := os.OpenRoot(filepath.Dir(filepath.Clean(root)))
	if err != nil {
		return err
	}
	defer parent.Close()
	base := filepath.Base(filepath.Clean(root))
	if base == "." || base == ".." || base == "/" {
		parent2, err := os.OpenRoot(root)
		if err != nil {
			return err
		}
		defer parent2.Close()
		parent, base = parent2, "."
	}
	for reader := tar.NewReader(r); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		_, rest, _ := strings.Cut(strings.Trim(path.Clean(header.Name), "/"), "/")
		if err := extractEntry(parent, path.Join(base, rest), header, reader, owners); err != nil {
			return fmt.Errorf("copy %s: %w", header.Name, err)
		}
	}
}

func extractEntry(root *os.Root, name string, header *tar.Header, content io.Reader, owners bool) error {
	mode := header.FileInfo().Mode()
	switch header.Typeflag {
	case tar.TypeDir:
		if err := root.Mkdir(name, mode.Perm()|0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case tar.TypeSymlink:
		_ = root.Remove(name) // what is there is replaced; if it cannot be, Symlink says so
		if err := root.Symlink(header.Linkname, name); err != nil {
			return err
		}
	case tar.TypeReg:
		file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode.Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(file, content)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	default:
		return nil // devices and pipes have no meaning here
	}
	if owners && os.Geteuid() == 0 {
		if err := root.Lchown(name, header.Uid, header.Gid); err != nil {
			return err
		}
	}
	if header.Typeflag == tar.TypeSymlink {
		return nil
	}
	return errors.Join(root.Chmod(name, mode.Perm()), root.Chtimes(name, header.ModTime, header.ModTime))
}

// in copies to a container.
func (c copying) in(ctx context.Context, source, name, target string) error {
	engine, err := c.app.client()
	if err != nil {
		return err
	}
	body, dir, err := c.upload(ctx, source, name, target)
	if err != nil {
		return err
	}
	request := archiveRequest("PUT", name, dir)
	request.Query.Set("noOverwriteDirNonDir", "true")
	setTrue(request.Query, "copyUIDGID", c.archive)
	request.Header = client.Header{"Content-Type": "application/x-tar"}
	request.Body = body
	response, err := engine.Do(ctx, request)
	if err != nil {
		return explain(err, name, target)
	}
	return response.Body.Close()
}

// upload returns the archive to send and the directory in the container to extract it in.
func (c copying) upload(ctx context.Context, source, name, target string) (io.Reader, string, error) {
	stat, statErr := c.stat(ctx, name, target)
	if statErr != nil && (!errors.Is(statErr, errdefs.ErrNotFound) || strings.Contains(statErr.Error(), "No such container")) {
		return nil, "", statErr
	}
	if statErr == nil && stat.LinkTarget != "" {
		if resolved, err := c.stat(ctx, name, stat.LinkTarget); err == nil {
			stat, target = resolved, stat.LinkTarget
		}
	}
	isDir := statErr == nil && stat.Mode.IsDir()
	if source == "-" {
		if !isDir {
			return nil, "", fmt.Errorf("destination %q must be a directory", name+":"+target)
		}
		return c.app.in, target, nil
	}
	if c.follow {
		resolved, err := filepath.EvalSymlinks(source)
		if err != nil {
			return nil, "", err
		}
		source = resolved
	}
	info, err := os.Lstat(source)
	if err != nil {
		return nil, "", err
	}
	rename := filepath.Base(filepath.Clean(source))
	dir := target
	switch {
	case isDir && strings.HasSuffix(source, "/."):
		rename = "."
	case isDir:
	case statErr != nil && strings.HasSuffix(target, "/") && !info.IsDir():
		return nil, "", fmt.Errorf("no such directory: %s", target)
	case statErr == nil && info.IsDir():
		return nil, "", fmt.Errorf("cannot copy a directory to the file %s", target)
	default:
		rename, dir = path.Base(path.Clean(target)), path.Dir(path.Clean(target))
	}
	return archiveOf(source, rename), dir, nil
}

// archiveOf streams a file or tree as a tar in which its root has another name.
func archiveOf(source, rename string) io.Reader {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		err := filepath.WalkDir(source, func(file string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rest, err := filepath.Rel(source, file)
			if err != nil {
				return err
			}
			return addFile(tw, file, path.Join(rename, filepath.ToSlash(rest)), entry)
		})
		w.CloseWithError(errors.Join(err, tw.Close()))
	}()
	return r
}

func addFile(tw *tar.Writer, file, name string, entry fs.DirEntry) (err error) {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return nil // a socket: there is nothing to copy
	}
	header.Name = name
	if info.IsDir() {
		header.Name += "/"
	}
	if err := tw.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	content, err := os.Open(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(tw, content)
	return errors.Join(err, content.Close())
}
