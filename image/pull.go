package image

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/store/metadata"
)

// Pull copies an image from o.Source and gives it the name r, last: until then nothing has changed that
// anybody sees. What a broken pull brought is kept for the next, whole blobs and parts of them.
func (s *Store) Pull(ctx context.Context, r ref.Ref, o PullOptions) (Pulled, error) {
	defer s.o.Content.Lease()()
	defer s.o.Layers.Lease()()
	r = r.WithDefaultTag()
	tag := r.Tag
	if r.Digest != "" {
		tag = string(r.Digest)
	}
	c := &copier{store: s, source: o.Source, report: newReporter(o.Progress), plainBlobs: true}
	target, err := o.Source.Resolve(ctx, tag)
	if err != nil {
		return Pulled{}, err
	}
	if r.Digest != "" && target.Digest != r.Digest {
		return Pulled{}, errdefs.New(errdefs.ErrDataLoss, "pull %s: the registry answered with %s", r.Familiar(), target.Digest)
	}
	c.report.status(tag, "Pulling from "+r.Path)
	got, err := s.fetch(ctx, c, r, target, o.Platform)
	if err != nil {
		return Pulled{}, err
	}
	before, known := s.named(r)
	img, err := s.record(ctx, got.id, imageRecord{Manifest: got.manifest, Layers: got.config.RootFS.DiffIDs, Complete: got.complete}, target, pulledNames(r, target), ByPull)
	if err != nil {
		return Pulled{}, err
	}
	pulled := Pulled{Image: img, Target: target, Newer: !known || before.ID != got.id || before.Target.Digest != target.Digest || got.layers > 0}
	if c.deltas.used() {
		c.report.status("", c.deltas.summary())
	}
	c.report.status("", "Digest: "+string(target.Digest))
	c.report.status("", pulled.Status(r))
	return pulled, nil
}

// Status is the last line that Docker prints for a pull of r.
func (p Pulled) Status(r ref.Ref) string {
	name := r.WithDefaultTag().Familiar()
	if p.Newer {
		return "Status: Downloaded newer image for " + name
	}
	return "Status: Image is up to date for " + name
}

// pulledNames are the names after a pull by tag: the tag and the digest.
func pulledNames(r ref.Ref, target oci.Descriptor) []ref.Ref {
	byDigest := r.WithDigest(target.Digest)
	if r.Digest != "" {
		return []ref.Ref{byDigest}
	}
	return []ref.Ref{r, byDigest}
}

// named returns what a name points to now.
func (s *Store) named(r ref.Ref) (nameRecord, bool) {
	var rec nameRecord
	err := s.o.DB.View(func(tx *metadata.Tx) (err error) {
		rec, err = names().Get(tx, nameKey(r))
		return err
	})
	return rec, err == nil
}

// fetch copies what target leads to and remembers the pull while it lasts.
func (s *Store) fetch(ctx context.Context, c *copier, r ref.Ref, target oci.Descriptor, platform *oci.Platform) (copied, error) {
	want := s.o.Platform
	if platform != nil {
		want = *platform
	}
	from, err := c.choose(ctx, target, want)
	if err != nil {
		return copied{}, err
	}
	if platform != nil && !Matches(want, from.config.Platform()) {
		return copied{}, wrongPlatform(r.Familiar(), from.config.Platform(), want)
	}
	if err := s.setPull(r, &pullRecord{Manifest: from.desc, Since: s.o.Now().UTC()}); err != nil {
		return copied{}, err
	}
	if c.deltas, err = s.deltas(c.source, r, from); err != nil {
		return copied{}, err
	}
	unpacked, complete, err := c.layers(ctx, from)
	if err == nil && c.deltas.used() {
		err = s.o.Layers.Sync(ctx)
	}
	if err != nil {
		return copied{}, err
	}
	if err := s.remember(r, from); err != nil {
		return copied{}, err
	}
	return copied{
		id: from.manifest.Config.Digest, config: from.config, manifest: from.desc, target: target, complete: complete, layers: unpacked,
	}, s.setPull(r, nil)
}

// setPull notes that a pull is under way, or (nil) done.
func (s *Store) setPull(r ref.Ref, rec *pullRecord) error {
	err := s.o.DB.Update(func(tx *metadata.Tx) error {
		if rec == nil {
			return pulls().Delete(tx, nameKey(r))
		}
		return pulls().Put(tx, nameKey(r), *rec)
	})
	if err != nil {
		return fmt.Errorf("record pull of %s: %w", r.Familiar(), err)
	}
	return nil
}

const (
	maxForms        = 4  // of one layer
	maxRepositories = 16 // of one form
)

// remember notes, for later pushes, that r's repository holds the layers' blobs.
func (s *Store) remember(r ref.Ref, from chosen) error {
	err := s.o.DB.Update(func(tx *metadata.Tx) error {
		for i, desc := range from.manifest.Layers {
			if err := rememberForm(tx, from.config.RootFS.DiffIDs[i], desc, r.Name()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record where layers are: %w", err)
	}
	return nil
}

// rememberForm puts one compressed form of a layer first, with the repository first in it.
func rememberForm(tx *metadata.Tx, id oci.DiffID, desc oci.Descriptor, repository string) error {
	rec, err := layerRecordOf(tx, id)
	if err != nil {
		return err
	}
	form := layerForm{Descriptor: oci.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}}
	rec.Forms = slices.DeleteFunc(rec.Forms, func(f layerForm) bool {
		if f.Descriptor.Digest == desc.Digest {
			form.Repositories = f.Repositories
			return true
		}
		return false
	})
	form.Repositories = slices.DeleteFunc(form.Repositories, func(have string) bool { return have == repository })
	form.Repositories = slices.Insert(form.Repositories, 0, repository)
	form.Repositories = form.Repositories[:min(len(form.Repositories), maxRepositories)]
	rec.Forms = slices.Insert(rec.Forms, 0, form)
	rec.Forms = rec.Forms[:min(len(rec.Forms), maxForms)]
	return distribution().Put(tx, string(id), rec)
}

func layerRecordOf(tx *metadata.Tx, id oci.DiffID) (layerRecord, error) {
	rec, err := distribution().Get(tx, string(id))
	if errors.Is(err, errdefs.ErrNotFound) {
		return layerRecord{}, nil
	}
	return rec, err
}
