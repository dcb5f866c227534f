package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/store/layer"
)

// Load reads the images of an archive in any compression: Docker's, old or new, or an OCI layout. An
// OCI layout's compressed blobs are kept, so that the image can be pushed with the same digest.
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Loaded, error) {
	a, err := spool(ctx, r, s.o.TempDir)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	defer s.o.Content.Lease()()
	defer s.o.Layers.Lease()()
	l := &loader{store: s, archive: a, report: newReporter(o.Progress), platform: s.o.Platform}
	if o.Platform != nil {
		l.platform = *o.Platform
	}
	if l.from, err = l.deltas(); err != nil {
		return nil, err
	}
	ociLayout, docker := a.kindOf()
	if ociLayout {
		loaded, err := l.layout(ctx)
		if err == nil || !docker || !errors.Is(err, errdefs.ErrNotFound) {
			return loaded, err
		}
	}
	if docker {
		return l.docker(ctx)
	}
	return nil, errdefs.Invalid("this is not an image archive: %w", errNotAnArchive)
}

// loader is one Load.
type loader struct {
	store    *Store
	archive  *archive
	report   *reporter
	platform oci.Platform
	from     *deltas // of an archive that holds only what is new
}

// layout loads what index.json lists. Entries for other platforms or artifacts are passed over, as long
// as there is one image.
func (l *loader) layout(ctx context.Context) ([]Loaded, error) {
	var index oci.Index
	if err := l.archive.json("index.json", &index); err != nil {
		return nil, err
	}
	repoTags, err := l.repoTags()
	if err != nil {
		return nil, err
	}
	var loaded []Loaded
	var passed error
	for _, desc := range index.Manifests {
		if desc.MediaType == "" {
			desc.MediaType = oci.MediaTypeManifest
		}
		if desc.Platform != nil && len(index.Manifests) > 1 && !Matches(l.platform, *desc.Platform) {
			passed = errdefs.NotFound("image might be for a different platform: the archive has none for %s", platformText(l.platform))
			continue
		}
		img, err := l.manifest(ctx, desc, repoTags)
		if errors.Is(err, errdefs.ErrNotFound) {
			passed = err
			continue
		}
		if err != nil {
			return loaded, err
		}
		loaded = appendLoaded(loaded, img, namesOf(desc, repoTags[img.ID]))
	}
	if len(loaded) == 0 && passed == nil {
		passed = errdefs.NotFound("the archive holds no image")
	}
	if len(loaded) == 0 {
		return nil, passed
	}
	return loaded, nil
}

func (l *loader) manifest(ctx context.Context, target oci.Descriptor, repoTags map[oci.Digest][]ref.Ref) (Image, error) {
	c := &copier{store: l.store, source: l.archive, report: l.loading(), deltas: l.from}
	plain := target
	plain.Annotations, plain.Platform = nil, nil
	from, err := c.choose(ctx, plain, l.platform)
	if err != nil {
		return Image{}, err
	}
	_, complete, err := c.layers(ctx, from)
	if err != nil {
		return Image{}, err
	}
	if err := l.store.o.Layers.Sync(ctx); err != nil {
		return Image{}, fmt.Errorf("make layers durable: %w", err)
	}
	id := from.manifest.Config.Digest
	rec := imageRecord{Manifest: from.desc, Layers: from.config.RootFS.DiffIDs, Complete: complete}
	return l.store.record(ctx, id, rec, plain, namesOf(target, repoTags[id]), ByLoad)
}

// loading translates a pull's words into a load's.
func (l *loader) loading() *reporter {
	return newReporter(func(p Progress) {
		switch p.Status {
		case "Downloading", "Extracting":
			l.report.bytes(p.ID, "Loading layer", p.Current, p.Total)
		}
	})
}

// namesOf returns the names of an index entry: its annotations', else manifest.json's.
func namesOf(desc oci.Descriptor, repoTags []ref.Ref) []ref.Ref {
	for _, value := range []string{desc.Annotations[annotationImageName], desc.Annotations[annotationRefName]} {
		// A bare tag is no name: "latest" alone would be a repository.
		if !strings.ContainsAny(value, "/:") {
			continue
		}
		if r, err := ref.Parse(value); err == nil && r.Digest == "" {
			return []ref.Ref{r.WithDefaultTag()}
		}
	}
	return repoTags
}

// repoTags reads the names of manifest.json, where the archive has one, by image ID.
func (l *loader) repoTags() (map[oci.Digest][]ref.Ref, error) {
	byID := map[oci.Digest][]ref.Ref{}
	if !l.archive.has("manifest.json") {
		return byID, nil
	}
	var list []archiveManifest
	if err := l.archive.json("manifest.json", &list); err != nil {
		return nil, err
	}
	for _, entry := range list {
		config, err := l.archive.readAll(entry.Config)
		if err != nil {
			return nil, err
		}
		refs, err := parseTags(entry.RepoTags)
		if err != nil {
			return nil, err
		}
		byID[oci.DigestOf(config)] = refs
	}
	return byID, nil
}

func parseTags(tags []string) ([]ref.Ref, error) {
	var refs []ref.Ref
	for _, tag := range tags {
		r, err := ref.Parse(tag)
		if err != nil {
			return nil, err
		}
		refs = append(refs, r.WithDefaultTag())
	}
	return refs, nil
}

func appendLoaded(loaded []Loaded, img Image, as []ref.Ref) []Loaded {
	if len(as) == 0 {
		return append(loaded, Loaded{ID: img.ID})
	}
	for _, r := range as {
		one := Loaded{ID: img.ID, Name: r.Familiar()}
		if !slices.Contains(loaded, one) {
			loaded = append(loaded, one)
		}
	}
	return loaded
}

// docker loads what manifest.json lists.
func (l *loader) docker(ctx context.Context) ([]Loaded, error) {
	var list []archiveManifest
	if err := l.archive.json("manifest.json", &list); err != nil {
		return nil, err
	}
	var loaded []Loaded
	for _, entry := range list {
		as, err := parseTags(entry.RepoTags)
		if err != nil {
			return loaded, err
		}
		img, err := l.dockerImage(ctx, entry, as)
		if err != nil {
			return loaded, err
		}
		loaded = appendLoaded(loaded, img, as)
	}
	return loaded, nil
}

func (l *loader) dockerImage(ctx context.Context, entry archiveManifest, as []ref.Ref) (Image, error) {
	config, err := l.archive.readAll(entry.Config)
	if err != nil {
		return Image{}, err
	}
	decoded, err := decodeConfig(config, oci.Manifest{Layers: make([]oci.Descriptor, len(entry.Layers))})
	if err != nil {
		return Image{}, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(l.store.o.Downloads)
	for i, name := range entry.Layers {
		group.Go(func() error { return l.dockerLayer(groupCtx, name, decoded.RootFS.DiffIDs[:i+1]) })
	}
	if err := group.Wait(); err != nil {
		return Image{}, err
	}
	return l.store.putConfig(ctx, config, oci.MediaTypeConfig, "", as, ByLoad)
}

func (l *loader) dockerLayer(ctx context.Context, name string, chain []oci.DiffID) error {
	if l.store.o.Layers.Has(chain...) {
		return nil
	}
	content, err := l.archive.open(name)
	if err != nil {
		return err
	}
	last := len(chain) - 1
	counted := &counter{
		Reader: &contextReader{ctx, content}, report: l.report, id: oci.Digest(chain[last]).Short(), status: "Loading layer", total: content.Size(),
	}
	tar, _, err := layer.Decompress(counted)
	if err != nil {
		return fmt.Errorf("load layer %s: %w", name, err)
	}
	defer tar.Close()
	if err := l.store.o.Layers.Unpack(ctx, chain[last], chain[:last], tar); err != nil {
		return fmt.Errorf("load layer %s: %w", name, err)
	}
	return nil
}
