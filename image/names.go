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

// Tag gives the image that source resolves to another name, taking it from the image that had it.
func (s *Store) Tag(ctx context.Context, source string, target ref.Ref, by Cause) error {
	if target.Digest != "" {
		return errdefs.Invalid("refusing to create a tag with a digest reference")
	}
	err := s.o.DB.Update(func(tx *metadata.Tx) error {
		id, rec, err := lookup(tx, source)
		if err != nil {
			return err
		}
		return s.setName(tx, target, nameRecord{ID: id, Target: rec.Manifest}, by)
	})
	if err != nil {
		return err
	}
	return s.writeIndex(ctx)
}

// setName points a name to an image that has a record.
func (s *Store) setName(tx *metadata.Tx, r ref.Ref, to nameRecord, by Cause) error {
	key := nameKey(r)
	if err := s.logMove(tx, key, to, by); err != nil {
		return err
	}
	if err := s.dropName(tx, key); err != nil {
		return err
	}
	rec, err := images().Get(tx, string(to.ID))
	if err != nil {
		return fmt.Errorf("name image %s: %w", to.ID.Short(), err)
	}
	if !slices.Contains(rec.Names, key) {
		rec.Names = append(rec.Names, key)
		slices.Sort(rec.Names)
	}
	rec.Updated = s.o.Now().UTC()
	if err := images().Put(tx, string(to.ID), rec); err != nil {
		return fmt.Errorf("name image %s: %w", to.ID.Short(), err)
	}
	return names().Put(tx, key, to)
}

// dropName takes a name away from whichever image has it.
func (s *Store) dropName(tx *metadata.Tx, key string) error {
	old, err := names().Get(tx, key)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up name %s: %w", key, err)
	}
	if err := names().Delete(tx, key); err != nil {
		return fmt.Errorf("remove name %s: %w", key, err)
	}
	rec, err := images().Get(tx, string(old.ID))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up image %s: %w", old.ID.Short(), err)
	}
	rec.Names = slices.DeleteFunc(rec.Names, func(n string) bool { return n == key })
	return images().Put(tx, string(old.ID), rec)
}

// writeIndex lists, in the content store's index.json, the images whose blobs are all there, for
// programs that read the layout. On a full disk the list stays as it was until the next time: no image is
// lost by that, and an old list must not keep anybody from removing images.
func (s *Store) writeIndex(ctx context.Context) error {
	var manifests []oci.Descriptor
	err := s.o.DB.View(func(tx *metadata.Tx) error {
		for _, rec := range images().All(tx) {
			if !rec.Complete {
				continue
			}
			for _, name := range rec.Names {
				desc := rec.Manifest
				desc.Annotations = map[string]string{annotationRefName: name}
				manifests = append(manifests, desc)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list names for the layout's index: %w", err)
	}
	err = s.o.Content.SetIndex(ctx, manifests)
	if errdefs.NoSpace(err) {
		s.o.Log.Warn("the layout's index is out of date", "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("write the layout's index: %w", err)
	}
	return nil
}

// Annotations by which an index names its manifests.
const (
	annotationRefName   = "org.opencontainers.image.ref.name" // image-spec: a tag, or any name
	annotationImageName = "io.containerd.image.name"          // Docker, containerd: the full reference
)
