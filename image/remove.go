package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/store/metadata"
)

// Remove takes away a name, and with its last name the image; or, called by an ID, the image with all
// its names if they are of one repository. Its rules and sentences are Docker's. Blobs and layers that
// nothing needs any more are collected before it returns.
func (s *Store) Remove(ctx context.Context, name string, o RemoveOptions) ([]Deleted, error) {
	deleted, err := s.remove(ctx, name, o)
	if err != nil || len(deleted) == 0 {
		return deleted, err
	}
	if s.o.Collect != nil && slices.ContainsFunc(deleted, func(d Deleted) bool { return d.Deleted != "" }) {
		if _, err := s.o.Collect(ctx); err != nil {
			return deleted, fmt.Errorf("delete unused content: %w", err)
		}
	}
	return deleted, s.writeIndex(ctx)
}

func (s *Store) remove(ctx context.Context, name string, o RemoveOptions) ([]Deleted, error) {
	if o.Platform != nil {
		if _, err := s.Resolve(ctx, name, o.Platform); err != nil {
			return nil, err
		}
	}
	r := &removal{store: s, users: s.users(), force: o.Force, prune: !o.NoPrune}
	err := s.o.DB.Update(func(tx *metadata.Tx) error {
		r.tx, r.deleted = tx, nil
		id, rec, err := lookup(tx, name)
		if err != nil {
			return err
		}
		if named, err := lookupName(tx, name); err != nil || named == "" {
			return errors.Join(err, r.byID(id, rec))
		}
		return r.byName(id, rec, name)
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range r.deleted {
		delete(s.configs, d.Deleted)
	}
	return r.deleted, nil
}

func (s *Store) users() map[oci.Digest][]User {
	if s.o.Users == nil {
		return nil
	}
	return s.o.Users.ImageUsers()
}

// removal is one Remove in its transaction.
type removal struct {
	store        *Store
	tx           *metadata.Tx
	users        map[oci.Digest][]User
	force, prune bool
	deleted      []Deleted
}

// byName removes a name, then its repository's digest names if it was the repository's last tag, and
// then the image if no name is left.
func (r *removal) byName(id oci.Digest, rec imageRecord, name string) error {
	parsed, err := ref.Parse(name)
	if err != nil {
		return err
	}
	if users := r.users[id]; !r.force && len(users) > 0 && singleReference(rec.Names) {
		return errdefs.Conflict("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
			name, short(users[0].Container), id.Short())
	}
	key := nameKey(parsed)
	if err := r.untag(key); err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(rec.Names), func(n string) bool { return n == key })
	sameRepository := func(n string) bool { return repository(n) == parsed.Name() }
	if parsed.Digest == "" && !slices.ContainsFunc(left, func(n string) bool { return sameRepository(n) && !byDigest(n) }) {
		for _, n := range left {
			if sameRepository(n) {
				if err := r.untag(n); err != nil {
					return err
				}
			}
		}
		left = slices.DeleteFunc(left, sameRepository)
	}
	if len(left) > 0 {
		return nil
	}
	return r.image(id, r.force, true)
}

// byID removes the image, with its names if they are of one repository.
func (r *removal) byID(id oci.Digest, rec imageRecord) error {
	if singleReference(rec.Names) {
		if err := r.conflict(id, r.force, false); err != nil {
			return err
		}
		for _, name := range rec.Names {
			if err := r.untag(name); err != nil {
				return err
			}
		}
	}
	return r.image(id, r.force, false)
}

// image removes the image with what names it has left, and then its parents, as long as they have
// neither names nor other children. A quiet removal gives way to a conflict instead of reporting it.
func (r *removal) image(id oci.Digest, force, quiet bool) error {
	for {
		rec, err := images().Get(r.tx, string(id))
		if err != nil {
			return fmt.Errorf("look up image %s: %w", id.Short(), err)
		}
		if err := r.conflict(id, force, true); err != nil {
			if quiet {
				return nil
			}
			return err
		}
		for _, name := range rec.Names {
			if err := r.untag(name); err != nil {
				return err
			}
		}
		if err := images().Delete(r.tx, string(id)); err != nil {
			return fmt.Errorf("remove image %s: %w", id.Short(), err)
		}
		r.deleted = append(r.deleted, Deleted{Deleted: id})
		if err := r.layers(id, rec.Layers); err != nil {
			return err
		}
		if !r.prune || rec.Parent == "" {
			return nil
		}
		parent, err := images().Get(r.tx, string(rec.Parent))
		if err != nil || len(parent.Names) > 0 {
			return nil // the parent is gone already, or somebody's
		}
		id, force, quiet = rec.Parent, false, true
	}
}

// layers reports the stacks that went with the image, the topmost first, by ChainID as Docker does.
func (r *removal) layers(id oci.Digest, layers []oci.DiffID) error {
	if len(r.users[id]) > 0 {
		return nil // a container still needs them
	}
	used := map[oci.ChainID]bool{}
	for _, rec := range images().All(r.tx) {
		for i := range rec.Layers {
			used[oci.Chain(rec.Layers[:i+1]...)] = true
		}
	}
	for i := len(layers); i > 0; i-- {
		chain := oci.Chain(layers[:i]...)
		if used[chain] {
			break
		}
		r.deleted = append(r.deleted, Deleted{Deleted: oci.Digest(chain), Layer: true})
	}
	return nil
}

func (r *removal) untag(key string) error {
	err := r.store.logMove(r.tx, key, nameRecord{}, ByDeletion)
	if err != nil && !errdefs.NoSpace(err) { // a first entry has no room on a full disk, and removing is what helps
		return err
	}
	if err := r.store.dropName(r.tx, key); err != nil {
		return err
	}
	familiar, _ := familiarName(key)
	r.deleted = append(r.deleted, Deleted{Untagged: familiar})
	return nil
}

// conflict says why an image cannot be removed. Children and running containers always forbid it,
// several repositories (where references count) and stopped containers unless forced.
func (r *removal) conflict(id oci.Digest, force, references bool) error {
	refuse := func(forced, why string) error {
		return errdefs.Conflict("conflict: unable to delete %s (%s) - %s", id.Short(), forced, why)
	}
	for _, rec := range images().All(r.tx) {
		if rec.Parent == id {
			return refuse("cannot be forced", "image has dependent child images")
		}
	}
	for _, user := range r.users[id] {
		if user.Running {
			return refuse("cannot be forced", "image is being used by running container "+short(user.Container))
		}
	}
	if force {
		return nil
	}
	if references {
		rec, err := images().Get(r.tx, string(id))
		if err == nil && len(rec.Names) > 0 {
			return refuse("must be forced", "image is referenced in multiple repositories")
		}
	}
	for _, user := range r.users[id] {
		return refuse("must be forced", "image is being used by stopped container "+short(user.Container))
	}
	return nil
}

// singleReference says whether names has at most one tag, and digests of its repository only.
func singleReference(names []string) bool {
	if len(names) <= 1 {
		return true
	}
	tags := 0
	repositories := map[string]bool{}
	for _, name := range names {
		repositories[repository(name)] = true
		if !byDigest(name) {
			tags++
		}
	}
	return tags <= 1 && len(repositories) == 1
}

func byDigest(name string) bool { return strings.Contains(name, "@") }

// repository cuts tag and digest off a key of the table "names".
func repository(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name
}

// short is the form in which people read container IDs.
func short(id string) string { return id[:min(12, len(id))] }
