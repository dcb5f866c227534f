package image

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/store/metadata"
)

// Resolve finds an image by a past name ("app@{1}"), a name, a digest reference, an ID or a unique prefix
// of one, in this order.
// With a platform, an image of another one is errdefs.ErrNotFound, so that the caller pulls.
func (s *Store) Resolve(ctx context.Context, name string, platform *oci.Platform) (Image, error) {
	var id oci.Digest
	var rec imageRecord
	err := s.o.DB.View(func(tx *metadata.Tx) (err error) {
		id, rec, err = lookup(tx, name)
		return err
	})
	if err != nil {
		return Image{}, err
	}
	img, err := s.image(ctx, id, rec)
	if err != nil {
		return Image{}, err
	}
	if platform != nil && !Matches(*platform, img.Config.Platform()) {
		return Image{}, wrongPlatform(name, img.Config.Platform(), *platform)
	}
	return img, nil
}

func wrongPlatform(name string, have, want oci.Platform) error {
	return errdefs.NotFound("image with reference %s was found but its platform (%s) does not match the specified platform (%s)", name, have, want)
}

// lookup finds an image's ID and record by whatever a user calls it.
func lookup(tx *metadata.Tx, name string) (oci.Digest, imageRecord, error) {
	id, err := lookupID(tx, name)
	if err != nil {
		return "", imageRecord{}, err
	}
	rec, err := images().Get(tx, string(id))
	if errors.Is(err, errdefs.ErrNotFound) {
		return "", imageRecord{}, notFound(name)
	}
	if err != nil {
		return "", imageRecord{}, fmt.Errorf("look up image %s: %w", name, err)
	}
	return id, rec, nil
}

func lookupID(tx *metadata.Tx, name string) (oci.Digest, error) {
	if tag, n, ok := CutMove(name); ok {
		past, err := pastMove(tx, tag, n)
		return past.ID, err
	}
	if full, ok := fullID(name); ok {
		return full, nil
	}
	if id, err := lookupName(tx, name); err != nil || id != "" {
		return id, err
	}
	id, err := lookupPrefix(tx, name)
	if err != nil || id != "" {
		return id, err
	}
	if _, err := ref.Parse(name); err != nil && !strings.HasPrefix(name, "sha256:") {
		return "", err
	}
	return "", notFound(name)
}

// lookupName returns the image that name names, as a reference and not as an ID; or none.
func lookupName(tx *metadata.Tx, name string) (oci.Digest, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return "", nil
	}
	rec, err := names().Get(tx, nameKey(r))
	if errors.Is(err, errdefs.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look up image %s: %w", name, err)
	}
	return rec.ID, nil
}

// fullID reads a whole image ID, with or without its algorithm.
func fullID(name string) (oci.Digest, bool) {
	if d, err := oci.ParseDigest("sha256:" + strings.TrimPrefix(name, "sha256:")); err == nil {
		return d, true
	}
	return "", false
}

// lookupPrefix returns the one image whose ID begins with name, or none. Two are an error.
func lookupPrefix(tx *metadata.Tx, name string) (oci.Digest, error) {
	prefix := strings.TrimPrefix(name, "sha256:")
	if prefix == "" || strings.Trim(prefix, "0123456789abcdef") != "" {
		return "", nil
	}
	var found oci.Digest
	for key := range images().All(tx) {
		if id := oci.Digest(key); strings.HasPrefix(id.Hex(), prefix) {
			if found != "" {
				return "", errdefs.Invalid("multiple IDs found with provided prefix: %s", name)
			}
			found = id
		}
	}
	return found, nil
}

// notFound is Docker's sentence, with the reference as people write it.
func notFound(name string) error {
	if r, err := ref.Parse(name); err == nil && !strings.HasPrefix(name, "sha256:") {
		name = r.WithDefaultTag().Familiar()
	}
	return errdefs.NotFound("No such image: %s", name)
}

// nameKey returns the key in the table "names": a digest makes a tag beside it meaningless.
func nameKey(r ref.Ref) string {
	if r.Digest != "" {
		return r.WithDigest(r.Digest).String()
	}
	return r.WithDefaultTag().String()
}

// familiarName shortens a key of the table "names", and says whether it names by digest.
func familiarName(key string) (name string, digest bool) {
	r, err := ref.Parse(key)
	if err != nil {
		return key, strings.Contains(key, "@")
	}
	return r.Familiar(), r.Digest != ""
}
