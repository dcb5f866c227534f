package op

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"davit/build/plan"
	"davit/build/tree"
	"davit/oci"
)

// Copy is a COPY or ADD whose sources are found.
type Copy struct {
	step    *plan.Copy
	sources []source
	exclude exclusion
	pending string // a URL whose content is known by its checksum and is not fetched yet
	digest  string
	cleanup []func() error
}

// Digest is a hash over what the step copies and how, but not of where to.
func (c *Copy) Digest() string { return c.digest }

// Close removes what was downloaded.
func (c *Copy) Close() error {
	var errs []error
	for _, clean := range c.cleanup {
		errs = append(errs, clean())
	}
	return errors.Join(errs...)
}

// PrepareCopy finds the sources of a step in from, downloads remote ones, and hashes them. The caller
// closes the result.
func (w *Worker) PrepareCopy(ctx context.Context, step *plan.Copy, from tree.Tree) (c *Copy, err error) {
	c = &Copy{step: step}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.exclude, err = newExclusion(step.Exclude); err != nil {
		return c, err
	}
	for _, name := range step.Sources {
		if err := w.addSource(ctx, c, name, from); err != nil {
			return c, err
		}
	}
	for _, inline := range step.Inline {
		c.addLone(inlineFile(inline.Name, inline.Content), false)
	}
	if len(c.sources) > 1 && !strings.HasSuffix(step.Dest, "/") {
		return c, destinationError(c.instruction())
	}
	content, err := digestSources(w.Hasher, c.sources, c.exclude)
	if err != nil {
		return c, err
	}
	c.digest = hashStrings(content, c.pending, step.Checksum)
	return c, nil
}

func (c *Copy) instruction() string {
	if c.step.Add {
		return "ADD"
	}
	return "COPY"
}

func (w *Worker) addSource(ctx context.Context, c *Copy, name string, from tree.Tree) error {
	if c.step.Add && plan.IsRemote(name) {
		if c.step.Checksum != "" {
			c.pending = name
			return nil
		}
		return w.download(ctx, c, name)
	}
	own := !c.step.From.IsZero()
	found, err := selectSources(from, c.instruction(), []string{name}, c.step.Parents, own)
	c.sources = append(c.sources, found...)
	return err
}

func (c *Copy) addLone(file *lone, remote bool) {
	c.sources = append(c.sources, source{tree: file, entry: file.entry, name: file.entry.Path, under: ".", remote: remote})
}

// Copy makes the layer of a prepared step over layers, lowest first.
func (w *Worker) Copy(ctx context.Context, layers []oci.DiffID, c *Copy) (oci.DiffID, error) {
	if c.pending != "" {
		if err := w.download(ctx, c, c.pending); err != nil {
			return "", err
		}
		c.pending = ""
	}
	p, err := w.placement(ctx, layers, c)
	if err != nil {
		return "", err
	}
	if c.step.Link {
		layers = nil
	}
	return w.write(ctx, layers, func(d *draft) error {
		for _, s := range c.sources {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if err := p.place(ctx, d, s); err != nil {
				return err
			}
		}
		return nil
	})
}

// placement is how sources become files of the layer.
type placement struct {
	dest       string
	directory  bool // dest has to be one
	owner      *owner
	chmod      chmod
	exclude    exclusion
	parents    bool
	unpack     func(source) bool
	decompress func(io.Reader) (io.ReadCloser, error)
}

func (w *Worker) placement(ctx context.Context, layers []oci.DiffID, c *Copy) (*placement, error) {
	p := &placement{
		dest: tree.Clean(c.step.Dest), directory: strings.HasSuffix(c.step.Dest, "/"), exclude: c.exclude,
		parents: c.step.Parents, decompress: w.Decompress,
	}
	p.unpack = func(s source) bool {
		wanted := !s.remote
		if c.step.Unpack != nil {
			wanted = *c.step.Unpack
		}
		return wanted && c.step.Add && s.entry.Mode.IsRegular() && isArchive(s, w.Decompress)
	}
	var err error
	if p.chmod, err = parseChmod(c.step.Chmod); err != nil {
		return nil, err
	}
	if c.step.Chown == "" {
		return p, nil
	}
	files, err := w.Tree(ctx, layers)
	if err != nil {
		return nil, err
	}
	o, err := chownOwner(files, c.step.Chown)
	p.owner = &o
	return p, err
}

// newOwner is who directories belong to that the step makes on the way to its destination.
func (p *placement) newOwner() owner {
	if p.owner != nil {
		return *p.owner
	}
	return owner{}
}

// entry is what a file of the source becomes.
func (p *placement) entry(s source, e tree.Entry) tree.Entry {
	switch {
	case p.owner != nil:
		e.UID, e.GID = p.owner.uid, p.owner.gid
	case !s.own:
		e.UID, e.GID = 0, 0
	}
	if p.chmod != nil && e.Mode.Type() != fs.ModeSymlink {
		e.Mode = p.chmod(e.Mode)
	}
	return e
}

// place copies one source.
func (p *placement) place(ctx context.Context, d *draft, s source) error {
	switch {
	case p.unpack(s):
		return p.extract(ctx, d, s)
	case p.parents:
		return p.placeUnder(d, s)
	case s.contents:
		return p.placeContents(d, s)
	}
	return p.placeFile(d, s)
}

// placeFile copies a file into the destination if that is, or shall be, a directory, and else to it.
func (p *placement) placeFile(d *draft, s source) error {
	excluded, _, err := p.exclude.match(s.name)
	if err != nil || excluded {
		return err
	}
	resolved, err := tree.Resolve(d.view(), p.dest)
	if err != nil {
		return err
	}
	dir, name := path.Dir(resolved), path.Base(resolved)
	there, err := d.view().Lstat(resolved)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if p.directory || (err == nil && there.IsDir()) {
		dir, name = resolved, s.name
	}
	at, err := d.directory(dir, p.newOwner())
	if err != nil {
		return err
	}
	return d.put(at, name, p.entry(s, s.entry), func() (io.ReadCloser, error) { return s.tree.Open(s.entry.Path) })
}

// placeContents copies what is in a directory into the destination. A destination that was not there
// becomes like the source; the root of a context stands for no directory of its own.
func (p *placement) placeContents(d *draft, s source) error {
	_, err := tree.Stat(d.view(), p.dest)
	isNew := errors.Is(err, fs.ErrNotExist)
	if err != nil && !isNew {
		return err
	}
	at, err := d.directory(p.dest, p.newOwner())
	if err != nil {
		return err
	}
	if isNew && s.entry.Path != "." {
		if err := d.describe(at.real, p.entry(s, s.entry)); err != nil {
			return err
		}
	}
	return p.fill(d, s, at)
}

// placeUnder copies a source of COPY --parents with the directories above it.
func (p *placement) placeUnder(d *draft, s source) error {
	at, err := d.directory(p.dest, p.newOwner())
	if err != nil {
		return err
	}
	if s.under != "." {
		base := strings.TrimSuffix(path.Dir(s.entry.Path), s.under)
		walked := tree.Clean(base)
		for element := range strings.SplitSeq(s.under, "/") {
			walked = tree.Join(walked, element)
			e, err := tree.Stat(s.tree, walked)
			if err != nil {
				return err
			}
			if at, err = d.putDirectory(at, element, p.entry(s, e)); err != nil {
				return err
			}
		}
	}
	if !s.entry.IsDir() {
		excluded, _, err := p.exclude.match(s.name)
		if err != nil || excluded {
			return err
		}
		return d.put(at, s.name, p.entry(s, s.entry), func() (io.ReadCloser, error) { return s.tree.Open(s.entry.Path) })
	}
	if !s.contents {
		if at, err = d.putDirectory(at, s.name, p.entry(s, s.entry)); err != nil {
			return err
		}
	}
	return p.fill(d, s, at)
}

// fill copies what is in the directory s into the directory at.
func (p *placement) fill(d *draft, s source, at place) error {
	places := map[string]place{".": at}
	return s.selected(p.exclude, func(rel string, e tree.Entry) error {
		if rel == "." || e.Mode.Type() == fs.ModeSocket {
			return nil
		}
		parent, err := p.parent(d, s, places, path.Dir(rel))
		if err != nil {
			return err
		}
		changed := p.entry(s, e)
		if !e.IsDir() {
			return d.put(parent, path.Base(rel), changed, func() (io.ReadCloser, error) { return s.tree.Open(e.Path) })
		}
		places[rel], err = d.putDirectory(parent, path.Base(rel), changed)
		return err
	})
}

// parent returns where the directory rel of the source went. One that is excluded, but holds something
// that is not, is made on the way.
func (p *placement) parent(d *draft, s source, places map[string]place, rel string) (place, error) {
	if at, ok := places[rel]; ok {
		return at, nil
	}
	above, err := p.parent(d, s, places, path.Dir(rel))
	if err != nil {
		return place{}, err
	}
	e, err := s.tree.Lstat(tree.Join(s.entry.Path, rel))
	if err != nil {
		return place{}, err
	}
	at, err := d.putDirectory(above, path.Base(rel), p.entry(s, e))
	places[rel] = at
	return at, err
}
