package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/pattern"
	"davit/registry/storage"
	"davit/registry/webhook"
)

// Move is one entry of a tag's log: from then on the tag named Digest, or nothing where it was deleted.
type Move struct {
	Digest oci.Digest `json:"digest,omitempty"`
	Time   time.Time  `json:"time"`
	By     string     `json:"by"` // the user, or the address of one who gave no name
}

// TagHistory is a tag's log, the latest move first: number n is what clients write as @{n}.
type TagHistory struct {
	Tag     string `json:"tag"`
	History []Move `json:"history"`
}

// repositoryHistory is the answer to GET /davit/v1/<name>/history: all tags, deleted ones too, by name.
type repositoryHistory struct {
	Name string       `json:"name"`
	Tags []TagHistory `json:"tags"`
}

// note adds a move to a tag's log, later than the time after, and returns its key and time. It is written
// before the tag itself: a crash between the two leaves a move that did not happen, never one that nobody
// knows of.
func (r repository) note(ctx context.Context, tag string, d oci.Digest, by string, after time.Time) (key string, at time.Time, err error) {
	at = time.Now().UTC()
	if !at.After(after) { // another process, whose clock is ahead, moved it
		at = after.Add(1)
	}
	value, err := json.Marshal(Move{d, at, by})
	if err != nil {
		return "", at, err
	}
	key = r.key("_history", tag, fmt.Sprintf("%020d-%s", at.UnixNano(), rand.Text()[:8]))
	return key, at, r.store.PutRecord(ctx, key, value)
}

// history returns a tag's log and the keys of its records, the latest first.
func (r repository) history(ctx context.Context, tag string) (moves []Move, keys []string, err error) {
	names, err := r.store.ListRecords(ctx, r.key("_history", tag))
	if err != nil {
		return nil, nil, err
	}
	slices.Reverse(names)
	for _, name := range names {
		key := r.key("_history", tag, name)
		value, err := r.store.GetRecord(ctx, key)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue // pruned since the list was made
		}
		var move Move
		if err == nil {
			err = json.Unmarshal(value, &move)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read history of tag %s: %w", tag, err)
		}
		moves, keys = append(moves, move), append(keys, key)
	}
	return moves, keys, nil
}

// prune forgets the moves that ended before the given time: each but the last lasted until the next. Of a
// tag that is gone the deletion goes too when it is that old.
func (r repository) prune(ctx context.Context, tag string, before time.Time) error {
	log, err := r.store.ReadRecord(ctx, r.key("_history", tag))
	if err != nil {
		return ignoreMissing(err)
	}
	moves, keys, err := r.history(ctx, tag)
	if err != nil {
		return err
	}
	for i, move := range moves {
		ended := move.Digest == "" && move.Time.Before(before) || i > 0 && moves[i-1].Time.Before(before)
		if !ended {
			continue
		}
		if err := r.store.DeleteRecord(ctx, keys[i]); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	if len(moves) > 0 && moves[0].Digest == "" && moves[0].Time.Before(before) {
		err := r.store.RemoveRecord(ctx, r.key("_history", tag), log.Version)
		if !errors.Is(err, errdefs.ErrConflict) { // else the tag is made again
			return ignoreMissing(err)
		}
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// setTag lets a tag name a digest, or nothing when d is empty, and notes it. An immutable tag that names
// something stays as it is.
func (s *Server) setTag(r request, tag string, d oci.Digest) error {
	return s.moveTag(r.Context(), r.repo, tag, d, r.by, func(now oci.Digest) (bool, error) {
		return true, s.mayMove(r.repo, tag, now, d)
	})
}

// moveTag does what allow lets it, given what the tag names now: empty for a tag that is not there.
func (s *Server) moveTag(ctx context.Context, repo repository, tag string, d oci.Digest, by string, allow func(now oci.Digest) (bool, error)) error {
	// Turns spare the requests of one process the conflicts, which are what keeps moves in order: the
	// log's last is what the tag names, and of two first pushes of an immutable tag one wins.
	over, err := s.turns.Take(ctx, repo.tagKey(tag))
	if err != nil {
		return err
	}
	defer over()
	for {
		m := tagMove{Move: Move{Digest: d, By: by}, repo: repo, tag: tag, allow: allow}
		if err := m.try(ctx); !errors.Is(err, errdefs.ErrConflict) {
			if m.moved {
				s.tellMove(ctx, m)
			}
			return err
		}
	}
}

// tagMove is one attempt to move a tag.
type tagMove struct {
	Move
	repo  repository
	tag   string
	allow func(now oci.Digest) (bool, error)

	record storage.Record // of the tag
	now    oci.Digest     // that it names
	after  time.Time      // of its last move
	moved  bool           // it names Digest now, and did not before
}

// try is errdefs.ErrConflict, and leaves nothing, when the tag moved meanwhile.
func (m *tagMove) try(ctx context.Context) error {
	if err := m.look(ctx); err != nil {
		return err
	}
	if m.Digest == m.now {
		if m.now == "" {
			return unknown(errdefs.NotFound("tag %s:%s is unknown", m.repo.name, m.tag), "MANIFEST_UNKNOWN")
		}
		return nil
	}
	if allowed, err := m.allow(m.now); err != nil || !allowed {
		return err
	}
	note, at, err := m.repo.note(ctx, m.tag, m.Digest, m.By, m.after)
	if err != nil {
		return err
	}
	err = m.swap(ctx, at)
	if m.moved = err == nil; errors.Is(err, errdefs.ErrConflict) {
		err = errors.Join(err, m.repo.store.DeleteRecord(ctx, note))
	}
	return err
}

// look reads the tag's record, what it names, and the time of its last move.
func (m *tagMove) look(ctx context.Context) (err error) {
	m.record, err = m.repo.store.ReadRecord(ctx, m.repo.tagKey(m.tag))
	if err == nil {
		m.now, m.after, err = parseTag(m.record.Value)
		return err
	}
	if ignoreMissing(err) != nil {
		return err
	}
	moves, _, err := m.repo.history(ctx, m.tag)
	if len(moves) > 0 {
		m.after = moves[0].Time
	}
	return err
}

func (m *tagMove) swap(ctx context.Context, at time.Time) error {
	store, key := m.repo.store, m.repo.tagKey(m.tag)
	if m.now == "" { // the name of the log itself, so that logs can be listed though their tags are gone
		if err := store.PutRecord(ctx, m.repo.key("_history", m.tag), nil); err != nil {
			return err
		}
	}
	if m.Digest != "" {
		_, err := store.SwapRecord(ctx, key, m.record.Version, tagValue(m.Digest, at))
		return err
	}
	err := store.RemoveRecord(ctx, key, m.record.Version)
	if errors.Is(err, errdefs.ErrNotFound) {
		err = errdefs.Conflict("tag %s was deleted by another request", m.tag)
	}
	return err
}

// mayMove fails when a tag is immutable and names something else than d.
func (s *Server) mayMove(repo repository, tag string, now, d oci.Digest) error {
	if now != "" && now != d && s.immutable(repo.name, tag) {
		return deniedBy("immutable", "DENIED", "tag %s:%s is immutable and names %s", repo.name, tag, now)
	}
	return nil
}

// immutable says whether one of the patterns covers a tag. A pattern is TAG or REPOSITORY:TAG, with "*"
// for any characters, slashes too.
func (s *Server) immutable(name, tag string) bool {
	return slices.ContainsFunc(s.options.Immutable, func(tagged string) bool {
		repo, tags, ok := strings.Cut(tagged, ":")
		if !ok {
			repo, tags = "*", tagged
		}
		return pattern.Match(repo, name) && pattern.Match(tags, tag)
	})
}

func (s *Server) listHistory(r request) error {
	if err := r.repo.exists(r.Context()); err != nil {
		return err
	}
	tags, err := s.store.ListRecords(r.Context(), r.repo.key("_history"))
	if err != nil {
		return err
	}
	if tags, err = r.page(tags); err != nil {
		return err
	}
	answer := repositoryHistory{Name: r.repo.name, Tags: []TagHistory{}}
	for _, tag := range tags {
		moves, _, err := r.repo.history(r.Context(), tag)
		if err != nil {
			return err
		}
		answer.Tags = append(answer.Tags, TagHistory{tag, moves})
	}
	return r.json("application/json", answer)
}

func (s *Server) tagHistory(r request) error {
	if err := ref.CheckTag(r.arg); err != nil {
		return fail("MANIFEST_UNKNOWN", "%w", err)
	}
	moves, _, err := r.repo.history(r.Context(), r.arg)
	if err != nil {
		return err
	}
	if len(moves) == 0 {
		return fail("MANIFEST_UNKNOWN", "tag %s of %s has no history", r.arg, r.repo.name)
	}
	return r.json("application/json", TagHistory{r.arg, moves})
}

// rollback lets a tag name again what its history says it named: ?digest=. It answers with the new move.
func (s *Server) rollback(r request) error {
	if err := ref.CheckTag(r.arg); err != nil {
		return fail("MANIFEST_UNKNOWN", "%w", err)
	}
	d, err := oci.ParseDigest(r.URL.Query().Get("digest"))
	if err != nil {
		return fail("DIGEST_INVALID", "%w", err)
	}
	if err := s.rollbackTo(r, d); err != nil {
		return err
	}
	moves, _, err := r.repo.history(r.Context(), r.arg)
	if err != nil {
		return err
	}
	return r.json("application/json", TagHistory{r.arg, moves[:1]})
}

func (s *Server) rollbackTo(r request, d oci.Digest) error {
	moves, _, err := r.repo.history(r.Context(), r.arg)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(moves, func(m Move) bool { return m.Digest == d }) {
		return fail("MANIFEST_UNKNOWN", "tag %s of %s never named %s, as far as its history goes", r.arg, r.repo.name, d)
	}
	if err := s.name(r, []string{r.arg}, d, func() error { return s.restore(r.Context(), r.repo, d) }); err != nil {
		return err
	}
	s.tell(r.Context(), webhook.Rollback, webhook.Target{Repository: r.repo.name, Tag: r.arg, Digest: d, Previous: moves[0].Digest})
	return s.quotas.Recount(r.Context(), r.repo.name)
}

// restore brings a deleted manifest back, and those of a deleted index. What is there, or was never in
// this registry (a sparse index), it leaves alone.
func (s *Server) restore(ctx context.Context, repo repository, d oci.Digest) error {
	if err := repo.use(ctx, repo.manifestKey(d)); ignoreMissing(err) != nil || err == nil {
		return err
	}
	record, err := s.store.ReadRecord(ctx, repo.deletedKey(d))
	if err != nil {
		return unknown(err, "MANIFEST_UNKNOWN")
	}
	content, err := s.manifestContent(ctx, d)
	if err != nil {
		return unknown(err, "MANIFEST_UNKNOWN")
	}
	var was entry
	if err := json.Unmarshal(record.Value, &was); err != nil {
		return fmt.Errorf("read record of deleted manifest %s: %w", d, err)
	}
	for _, child := range was.Manifests {
		if err := s.restore(ctx, repo, child); ignoreMissing(err) != nil {
			return err
		}
	}
	doc, e, err := checkManifest(content, was.MediaType)
	if err != nil {
		return err
	}
	if _, err := repo.holds(ctx, e.Blobs); err != nil {
		return err
	}
	if err := s.storeImage(ctx, repo, d, content, doc, e); err != nil {
		return err
	}
	return s.forget(ctx, repo.deletedKey(d), record)
}

// forget deletes a record as it was read, unless it was written again: the manifest was deleted anew.
func (s *Server) forget(ctx context.Context, key string, was storage.Record) error {
	err := s.store.RemoveRecord(ctx, key, was.Version)
	if revoked(err) {
		return nil
	}
	return err
}

// keepDeleted remembers a manifest that is about to be deleted, while histories may want it back.
func (s *Server) keepDeleted(ctx context.Context, repo repository, d oci.Digest, e entry) error {
	if s.options.HistoryKeep <= 0 {
		return nil
	}
	value, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return s.store.PutRecord(ctx, repo.deletedKey(d), value)
}

// pruneHistory ends the retention of what is too old: moves of tags, and deleted manifests.
func (s *Server) pruneHistory(ctx context.Context, repo repository) error {
	before := time.Now().Add(-s.options.HistoryKeep)
	tags, err := s.store.ListRecords(ctx, repo.key("_history"))
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if err := repo.prune(ctx, tag, before); err != nil {
			return err
		}
	}
	deleted, err := s.store.ListRecords(ctx, repo.key("_deleted"))
	if err != nil {
		return err
	}
	if settled := time.Now().Add(-2 * s.refresh); settled.Before(before) { // see keepReferenced
		before = settled
	}
	for _, name := range deleted {
		record, err := s.store.ReadRecord(ctx, repo.key("_deleted", name))
		if err == nil && record.Put.Before(before) {
			err = s.forget(ctx, repo.key("_deleted", name), record)
		}
		if ignoreMissing(err) != nil {
			return err
		}
	}
	return nil
}

// author names who a request is from, for logs and histories.
func author(user string, r *http.Request) string { return cmp.Or(user, clientAddress(r)) }

func clientAddress(r *http.Request) string {
	address := r.RemoteAddr
	if i := strings.LastIndexByte(address, ':'); i > 0 {
		address = address[:i]
	}
	return strings.Trim(address, "[]")
}
