package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/store/metadata"
)

// Save writes images as one archive that is two things at once, as Docker's since version 25:
//
//	oci-layout, index.json       an OCI image layout (image-spec, image-layout.md)
//	manifest.json, repositories  a Docker archive, whose paths lead into the same
//	blobs/sha256/...             blobs
//
// A name saves that name; a repository without tag, all its tags; an ID, the image without name.
func (s *Store) Save(ctx context.Context, list []string, w io.Writer) error {
	saved, err := s.toSave(ctx, list)
	if err != nil {
		return err
	}
	for _, item := range saved {
		if err := s.Ensure(ctx, item.img); err != nil {
			return err
		}
	}
	a := &archiver{store: s, tar: tar.NewWriter(w), written: map[oci.Digest]bool{}}
	if err := a.write(ctx, saved); err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

// savedImage is an image with the names under which it is saved.
type savedImage struct {
	img   Image
	names []ref.Ref
}

func (s *Store) toSave(ctx context.Context, list []string) ([]savedImage, error) {
	if len(list) == 0 {
		return nil, errdefs.Invalid("no images to save")
	}
	var saved []savedImage
	add := func(img Image, name *ref.Ref) {
		i := slices.IndexFunc(saved, func(item savedImage) bool { return item.img.ID == img.ID })
		if i < 0 {
			saved = append(saved, savedImage{img: img})
			i = len(saved) - 1
		}
		if name != nil && !slices.Contains(saved[i].names, *name) {
			saved[i].names = append(saved[i].names, *name)
		}
	}
	for _, name := range list {
		tags, err := s.tagsOf(name)
		if err != nil {
			return nil, err
		}
		for _, tag := range tags {
			img, err := s.Resolve(ctx, tag.String(), nil)
			if err != nil {
				return nil, err
			}
			add(img, &tag)
		}
		if len(tags) > 0 {
			continue
		}
		img, err := s.Resolve(ctx, name, nil)
		if err != nil {
			return nil, err
		}
		add(img, nil)
	}
	return saved, nil
}

// tagsOf returns the name itself, if it has a tag and exists, or all tags of a repository.
func (s *Store) tagsOf(name string) ([]ref.Ref, error) {
	r, err := ref.Parse(name)
	if err != nil || r.Digest != "" {
		return nil, nil // an ID or a digest: no tag to save
	}
	var tags []ref.Ref
	err = s.o.DB.View(func(tx *metadata.Tx) error {
		for key := range names().All(tx) {
			if byDigest(key) || repository(key) != r.Name() {
				continue
			}
			tag, err := ref.Parse(key)
			if err != nil {
				return fmt.Errorf("read name %s: %w", key, err)
			}
			if r.Tag == "" || r.Tag == tag.Tag {
				tags = append(tags, tag)
			}
		}
		return nil
	})
	return tags, err
}

// archiver writes one archive.
type archiver struct {
	store   *Store
	tar     *tar.Writer
	written map[oci.Digest]bool
}

// archiveManifest is an entry of manifest.json, Docker's list of images.
type archiveManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (a *archiver) write(ctx context.Context, saved []savedImage) error {
	index := oci.Index{SchemaVersion: 2, MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{}}
	var manifests []archiveManifest
	repositories := map[string]map[string]string{}
	if err := a.directories(); err != nil {
		return err
	}
	for _, item := range saved {
		desc, manifest, err := a.image(ctx, item.img)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, named(desc, item)...)
		entry := archiveManifest{Config: blobPath(manifest.Config.Digest), Layers: []string{}}
		for _, layer := range manifest.Layers {
			entry.Layers = append(entry.Layers, blobPath(layer.Digest))
		}
		for _, name := range item.names {
			entry.RepoTags = append(entry.RepoTags, name.Familiar())
			if repositories[name.FamiliarName()] == nil {
				repositories[name.FamiliarName()] = map[string]string{}
			}
			repositories[name.FamiliarName()][name.Tag] = item.img.ID.Hex()
		}
		manifests = append(manifests, entry)
	}
	layout := map[string]string{"imageLayoutVersion": "1.0.0"}
	for _, file := range []struct {
		name  string
		value any
	}{{"index.json", index}, {"manifest.json", manifests}, {"oci-layout", layout}, {"repositories", repositories}} {
		if err := a.json(file.name, file.value); err != nil {
			return err
		}
	}
	return a.tar.Close()
}

// named returns index entries for an image: one per name, or one without.
func named(desc oci.Descriptor, item savedImage) []oci.Descriptor {
	if len(item.names) == 0 {
		return []oci.Descriptor{desc}
	}
	var all []oci.Descriptor
	for _, name := range item.names {
		one := desc
		one.Annotations = map[string]string{annotationImageName: name.String(), annotationRefName: name.Tag}
		all = append(all, one)
	}
	return all
}

func blobPath(d oci.Digest) string { return "blobs/" + d.Algorithm() + "/" + d.Hex() }

func (a *archiver) directories() error {
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
		if err != nil {
			return err
		}
	}
	return nil
}

// image writes an image's blobs. If a compressed one is not here, its manifest is replaced by one of
// plain layers.
func (a *archiver) image(ctx context.Context, img Image) (oci.Descriptor, oci.Manifest, error) {
	desc := img.Manifest
	manifest, err := a.store.Manifest(ctx, img)
	if err != nil {
		return oci.Descriptor{}, oci.Manifest{}, err
	}
	if !a.available(ctx, manifest, img) {
		config := manifest.Config
		config.MediaType = oci.MediaTypeConfig
		if desc, err = a.store.plainManifest(ctx, config, img.Layers); err != nil {
			return oci.Descriptor{}, oci.Manifest{}, err
		}
		img.Manifest = desc
		if manifest, err = a.store.Manifest(ctx, img); err != nil {
			return oci.Descriptor{}, oci.Manifest{}, err
		}
	}
	for i, layer := range manifest.Layers {
		if err := a.layer(ctx, layer, img.Layers[:i+1]); err != nil {
			return oci.Descriptor{}, oci.Manifest{}, fmt.Errorf("layer %s: %w", layer.Digest.Short(), err)
		}
	}
	return desc, manifest, errors.Join(a.blob(ctx, manifest.Config), a.blob(ctx, desc))
}

// available says whether each layer of the manifest can be written: its blob, or its plain tar.
func (a *archiver) available(ctx context.Context, m oci.Manifest, img Image) bool {
	for i, layer := range m.Layers {
		if string(layer.Digest) == string(img.Layers[i]) {
			continue
		}
		if _, err := a.store.o.Content.Info(ctx, layer.Digest); err != nil {
			return false
		}
	}
	return true
}

func (a *archiver) layer(ctx context.Context, desc oci.Descriptor, chain []oci.DiffID) error {
	if string(desc.Digest) != string(chain[len(chain)-1]) {
		return a.blob(ctx, desc)
	}
	if a.written[desc.Digest] {
		return nil
	}
	a.written[desc.Digest] = true
	if err := a.header(blobPath(desc.Digest), desc.Size); err != nil {
		return err
	}
	return a.store.o.Layers.Tar(ctx, a.tar, chain...)
}

func (a *archiver) blob(ctx context.Context, desc oci.Descriptor) error {
	if a.written[desc.Digest] {
		return nil
	}
	a.written[desc.Digest] = true
	blob, err := a.store.o.Content.Open(ctx, desc)
	if err != nil {
		return err
	}
	defer blob.Close()
	if err := a.header(blobPath(desc.Digest), blob.Size()); err != nil {
		return err
	}
	_, err = io.Copy(a.tar, blob)
	return err
}

func (a *archiver) json(name string, value any) error {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(value); err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	if err := a.header(name, int64(b.Len())); err != nil {
		return err
	}
	_, err := a.tar.Write(b.Bytes())
	return err
}

func (a *archiver) header(name string, size int64) error {
	return a.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: formatFor(size),
	})
}

// formatFor chooses the plainest tar format that can hold the size.
func formatFor(size int64) tar.Format {
	if size < 8<<30 {
		return tar.FormatUSTAR
	}
	return tar.FormatPAX
}

// cleanPath brings a path in an archive to the form in which entries are kept.
func cleanPath(name string) string { return strings.Trim(strings.TrimPrefix(name, "./"), "/") }
