package image

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/store/metadata"
)

// List returns the images that o selects, newest first. Images that are only parents of others are
// left out unless o.All asks for them.
func (s *Store) List(ctx context.Context, o ListOptions) ([]Image, error) {
	records, err := s.records()
	if err != nil {
		return nil, err
	}
	if o.Before != "" {
		img, err := s.Resolve(ctx, o.Before, nil)
		if err != nil {
			return nil, err
		}
		if t := img.Created(); o.Until.IsZero() || t.Before(o.Until) {
			o.Until = t
		}
	}
	since, err := s.since(ctx, o.Since)
	if err != nil {
		return nil, err
	}
	parents := map[oci.Digest]bool{}
	for _, rec := range records {
		parents[rec.Parent] = true
	}
	var list []Image
	for id, rec := range records {
		if len(rec.Names) == 0 && parents[id] && !o.All {
			continue
		}
		img, err := s.image(ctx, id, rec)
		if err != nil {
			return nil, err
		}
		if selected(img, o) && since(img) {
			list = append(list, narrowed(img, o.Reference))
		}
	}
	slices.SortFunc(list, func(a, b Image) int {
		return cmp.Or(b.Created().Compare(a.Created()), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// records returns all images at one moment.
func (s *Store) records() (map[oci.Digest]imageRecord, error) {
	all := map[oci.Digest]imageRecord{}
	err := s.o.DB.View(func(tx *metadata.Tx) error {
		for id, rec := range images().All(tx) {
			all[oci.Digest(id)] = rec
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	return all, nil
}

func (s *Store) since(ctx context.Context, name string) (func(Image) bool, error) {
	if name == "" {
		return func(Image) bool { return true }, nil
	}
	than, err := s.Resolve(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	return func(img Image) bool { return img.Created().After(than.Created()) }, nil
}

func selected(img Image, o ListOptions) bool {
	switch {
	case o.Dangling != nil && *o.Dangling != img.Dangling():
		return false
	case !o.Until.IsZero() && !img.Created().Before(o.Until):
		return false
	case !labelled(img.Config.Config.Labels, o.Labels, o.NotLabels):
		return false
	case len(o.Reference) > 0:
		return len(narrowed(img, o.Reference).RepoTags) > 0 || len(narrowed(img, o.Reference).RepoDigests) > 0
	}
	return true
}

// labelled says whether labels has all of want and none of not; an empty value asks for any.
func labelled(labels, want, not map[string]string) bool {
	has := func(key, value string) bool {
		got, ok := labels[key]
		return ok && (value == "" || got == value)
	}
	for key, value := range want {
		if !has(key, value) {
			return false
		}
	}
	for key, value := range not {
		if has(key, value) {
			return false
		}
	}
	return true
}

// narrowed leaves only the names that match one of the patterns; without patterns, all.
func narrowed(img Image, patterns []string) Image {
	if len(patterns) == 0 {
		return img
	}
	other := func(name string) bool {
		return !slices.ContainsFunc(patterns, func(p string) bool { return matchName(p, name) })
	}
	img.RepoTags = slices.DeleteFunc(slices.Clone(img.RepoTags), other)
	img.RepoDigests = slices.DeleteFunc(slices.Clone(img.RepoDigests), other)
	return img
}

// matchName compares a familiar name with a pattern: with its tag or digest, or without.
func matchName(pattern, name string) bool {
	bare := name
	if r, err := ref.Parse(name); err == nil {
		bare = r.FamiliarName()
	}
	for _, candidate := range []string{name, bare} {
		if ok, err := path.Match(pattern, candidate); err == nil && ok {
			return true
		}
	}
	return false
}

// CheckPattern returns an errdefs.ErrInvalid error for a pattern that ListOptions.Reference cannot take.
func CheckPattern(pattern string) error {
	if _, err := path.Match(strings.TrimSpace(pattern), ""); err != nil {
		return errdefs.Invalid("invalid reference pattern %q: %w", pattern, err)
	}
	return nil
}
