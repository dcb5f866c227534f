package server

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/audit"
	"davit/registry/pattern"
	"davit/registry/retention"
	"davit/registry/storage"
)

// retained counts what retention did.
type retained struct{ tags, manifests, failures atomic.Int64 }

func (c *retained) series() []series {
	return []series{
		{"davit_registry_retention_tags_total", "counter", "Tags that retention rules removed.", &c.tags},
		{"davit_registry_retention_manifests_total", "counter", "Manifests that retention rules removed.", &c.manifests},
		{"davit_registry_retention_failures_total", "counter", "Repositories whose retention failed.", &c.failures},
	}
}

// retentionOf returns the rules that speak of a repository. Copies of other registries' content are the
// cache's to evict.
func (s *Server) retentionOf(repo repository) []retention.Rule {
	if s.cache != nil && s.cache.Owns(repo.name) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.rules().Retention), func(r retention.Rule) bool {
		return !pattern.Any(r.Repositories, repo.name)
	})
}

// Retain applies the rules of retention to all repositories, while requests go on here and in other
// processes.
func (s *Server) Retain(ctx context.Context) error {
	if len(s.rules().Retention) == 0 {
		return nil
	}
	return s.eachRepository(ctx, func(ctx context.Context, repo repository) error {
		plan, err := s.retain(ctx, repo)
		if err != nil && ctx.Err() == nil { // the other repositories have theirs
			s.metrics.retained.failures.Add(1)
			s.log.Error("retention failed", "repository", repo.name, "error", err)
			err = nil
		}
		if len(plan.Tags)+len(plan.Manifests) > 0 {
			s.log.Info("retention", "repository", repo.name, "tags", len(plan.Tags), "manifests", len(plan.Manifests))
		}
		return err
	})
}

// showRetention answers what would go now.
func (s *Server) showRetention(r request) error {
	if err := r.repo.exists(r.Context()); err != nil {
		return err
	}
	plan, _, err := s.planRetention(r.Context(), r.repo)
	if err != nil {
		return err
	}
	return r.json("application/json", plan)
}

// applyRetention lets go now what is to go, and answers what went.
func (s *Server) applyRetention(r request) error {
	if err := r.repo.exists(r.Context()); err != nil {
		return err
	}
	plan, err := s.retain(context.WithoutCancel(r.Context()), r.repo)
	if err != nil {
		return err
	}
	return r.json("application/json", plan)
}

// keptManifest is a manifest's record as it was read.
type keptManifest struct {
	entry
	version storage.Version
}

// planRetention reads a repository, and decides.
func (s *Server) planRetention(ctx context.Context, repo repository) (retention.Plan, map[oci.Digest]keptManifest, error) {
	rules := s.retentionOf(repo)
	for i := range rules {
		if rules[i].UntaggedAfter > 0 { // what was looked at just now may be about to be referred to
			rules[i].UntaggedAfter = max(rules[i].UntaggedAfter, retention.Age(2*s.refresh))
		}
	}
	if len(rules) == 0 {
		return retention.Decide(nil, retention.State{}, time.Now()), nil, nil
	}
	state, records, err := s.retentionState(ctx, repo, slices.ContainsFunc(rules, func(r retention.Rule) bool { return r.UntaggedAfter > 0 }))
	return retention.Decide(rules, state, time.Now()), records, err
}

// retentionState reads tags, and of manifests what is needed to decide about them where that is wanted. It
// reads the manifests first: who names one that was there before writes its record anew
// (name) or touches it (keepReferenced) if this has not seen the name.
func (s *Server) retentionState(ctx context.Context, repo repository, manifests bool) (state retention.State, records map[oci.Digest]keptManifest, err error) {
	state.Repository = repo.name
	if manifests {
		if records, err = s.readManifests(ctx, repo, &state); err != nil {
			return state, nil, err
		}
	}
	if err = s.readTags(ctx, repo, &state); err == nil && manifests {
		err = s.readLogged(ctx, repo, &state)
	}
	return state, records, err
}

// readLogged reads what tags named inside the retention of their histories.
func (s *Server) readLogged(ctx context.Context, repo repository, state *retention.State) error {
	logged, err := s.store.ListRecords(ctx, repo.key("_history"))
	if err != nil {
		return err
	}
	for _, tag := range logged {
		moves, _, err := repo.history(ctx, tag)
		if err != nil {
			return err
		}
		for i, move := range moves {
			ended := i > 0 && time.Since(moves[i-1].Time) > s.options.HistoryKeep
			if move.Digest != "" && !ended {
				state.Logged = append(state.Logged, move.Digest)
			}
		}
	}
	return nil
}

func (s *Server) readManifests(ctx context.Context, repo repository, state *retention.State) (map[oci.Digest]keptManifest, error) {
	names, err := s.store.ListRecords(ctx, repo.key("_manifests"))
	if err != nil {
		return nil, err
	}
	records := map[oci.Digest]keptManifest{}
	for _, name := range names {
		d, err := undashed(name)
		if err != nil {
			return nil, err
		}
		record, err := s.store.ReadRecord(ctx, repo.manifestKey(d))
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		one := keptManifest{version: record.Version}
		if err == nil {
			err = json.Unmarshal(record.Value, &one.entry)
		}
		if err != nil {
			return nil, err
		}
		records[d] = one
		state.Manifests = append(state.Manifests, retention.Manifest{Digest: d, Used: record.Put, Children: one.Manifests, Subject: one.Subject})
	}
	return records, nil
}

func (s *Server) readTags(ctx context.Context, repo repository, state *retention.State) error {
	tags, err := s.store.ListRecords(ctx, repo.key("_tags"))
	if err != nil {
		return err
	}
	for _, tag := range tags {
		record, err := s.store.ReadRecord(ctx, repo.tagKey(tag))
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		d, moved, err := parseTag(record.Value)
		if err != nil {
			return err
		}
		if moved.IsZero() {
			moved = record.Put
		}
		state.Tags = append(state.Tags, retention.Tag{Name: tag, Digest: d, Moved: moved, Immutable: s.immutable(repo.name, tag)})
	}
	return nil
}

// retain deletes what the rules of a repository let go, and returns what it deleted. It decides twice: a
// manifest goes when it was to go both times, and its record is the one that was read first. So one that
// is pushed, named by a tag or an index, or asked for by digest meanwhile stays.
func (s *Server) retain(ctx context.Context, repo repository) (done retention.Plan, err error) {
	plan, records, err := s.planRetention(ctx, repo)
	if err != nil {
		return done, err
	}
	done = retention.Plan{Tags: []retention.DroppedTag{}, Manifests: []retention.DroppedManifest{}, KeptTags: plan.KeptTags, Kept: plan.Kept}
	for _, tag := range plan.Tags {
		dropped, err := s.dropTag(ctx, repo, tag)
		if err != nil {
			return done, err
		}
		if dropped {
			done.Tags = append(done.Tags, tag)
		}
	}
	if len(plan.Manifests) == 0 {
		return done, nil
	}
	again, _, err := s.planRetention(ctx, repo)
	if err != nil {
		return done, err
	}
	still := map[oci.Digest]bool{}
	for _, m := range again.Manifests {
		still[m.Digest] = true
	}
	for _, m := range plan.Manifests {
		if !still[m.Digest] {
			continue
		}
		dropped, err := s.retire(ctx, repo, m, records[m.Digest])
		if err != nil {
			return done, err
		}
		if dropped {
			done.Manifests = append(done.Manifests, m)
		}
	}
	return done, nil
}

// dropTag deletes a tag unless it has moved.
func (s *Server) dropTag(ctx context.Context, repo repository, tag retention.DroppedTag) (dropped bool, err error) {
	err = s.moveTag(ctx, repo, tag.Name, "", "retention", func(now oci.Digest) (bool, error) {
		dropped = now == tag.Digest
		return dropped, nil
	})
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	if err == nil && dropped {
		s.metrics.retained.tags.Add(1)
		s.writeAudit(ctx, audit.Record{Action: "delete", Result: audit.OK, User: "retention", Rule: tag.Rule, Repository: repo.name, Kind: "manifest", Reference: tag.Name, Digest: tag.Digest})
	}
	return dropped && err == nil, err
}

// retire deletes a manifest whose record is the one that was read. It can be brought back like others that
// were deleted; an index that names it just now does that (keepReferenced).
func (s *Server) retire(ctx context.Context, repo repository, m retention.DroppedManifest, was keptManifest) (bool, error) {
	was.Retired = true
	value, err := json.Marshal(was.entry)
	if err != nil {
		return false, err
	}
	var referrer storage.Record
	if was.Subject != "" {
		referrer, err = s.store.ReadRecord(ctx, repo.referrerKey(was.Subject, m.Digest))
		if ignoreMissing(err) != nil {
			return false, err
		}
	}
	if err := s.store.PutRecord(ctx, repo.deletedKey(m.Digest), value); err != nil {
		return false, err
	}
	if err := s.store.RemoveRecord(ctx, repo.manifestKey(m.Digest), was.version); err != nil {
		if revoked(err) {
			return false, nil
		}
		return false, err
	}
	s.metrics.retained.manifests.Add(1)
	s.writeAudit(ctx, audit.Record{Action: "delete", Result: audit.OK, User: "retention", Rule: m.Rule, Repository: repo.name, Kind: "manifest", Reference: string(m.Digest), Digest: m.Digest})
	if referrer.Version == storage.Absent {
		return true, nil
	}
	err = s.store.RemoveRecord(ctx, repo.referrerKey(was.Subject, m.Digest), referrer.Version)
	if revoked(err) {
		err = nil
	}
	return true, err
}

// keepReferenced is for a manifest that was just written: what it refers to is kept from retention that has
// not seen it, and brought back where that was quicker. What is not there at all need not be.
func (s *Server) keepReferenced(ctx context.Context, repo repository, e entry) error {
	referred := e.Manifests
	if e.Subject != "" {
		referred = append(slices.Clone(referred), e.Subject)
	}
	for _, d := range referred {
		err := repo.use(ctx, repo.manifestKey(d))
		if errors.Is(err, errdefs.ErrNotFound) {
			err = s.unretire(ctx, repo, d)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unretire brings a manifest back that retention deleted, not one that somebody deleted.
func (s *Server) unretire(ctx context.Context, repo repository, d oci.Digest) error {
	was, err := repo.entry(ctx, repo.deletedKey(d))
	if err != nil || !was.Retired {
		return ignoreMissing(err)
	}
	err = s.restore(ctx, repo, d)
	if refused := (*failure)(nil); errors.As(err, &refused) {
		return nil // it lacks blobs that somebody deleted
	}
	return ignoreMissing(err)
}
