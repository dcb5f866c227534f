package retention

import (
	"cmp"
	"slices"
	"time"

	"davit/oci"
	"davit/registry/pattern"
)

// State is what a repository has.
type State struct {
	Repository string
	Tags       []Tag
	Manifests  []Manifest
	Logged     []oci.Digest // what the histories of tags name, inside their retention
}

// Tag names a manifest.
type Tag struct {
	Name      string     `json:"tag"`
	Digest    oci.Digest `json:"digest"`
	Moved     time.Time  `json:"moved"`
	Immutable bool       `json:"-"` // it stays
}

// Manifest is an image, an index or another artifact.
type Manifest struct {
	Digest   oci.Digest   `json:"digest"`
	Used     time.Time    `json:"used"` // when it was last pushed, or asked for by digest
	Children []oci.Digest `json:"-"`    // of an index
	Subject  oci.Digest   `json:"-"`    // that it refers to
}

// Plan is what is to go.
type Plan struct {
	Tags      []DroppedTag      `json:"tags"`
	Manifests []DroppedManifest `json:"manifests"`
	KeptTags  int               `json:"keptTags"`
	Kept      int               `json:"keptManifests"` // of those that were looked at
}

// DroppedTag is a tag that goes, by a rule.
type DroppedTag struct {
	Tag
	Rule string `json:"rule"`
}

// DroppedManifest is a manifest that goes, by a rule.
type DroppedManifest struct {
	Manifest
	Rule string `json:"rule"`
}

// Decide applies the rules to a repository. Manifests whose tags go now are not among those that go.
func Decide(rules []Rule, s State, now time.Time) Plan {
	rules = slices.DeleteFunc(slices.Clone(rules), func(r Rule) bool { return !pattern.Any(r.Repositories, s.Repository) })
	p := Plan{Tags: []DroppedTag{}, Manifests: []DroppedManifest{}}
	p.tags(rules, s.Tags, now)
	p.manifests(rules, s, now)
	return p
}

func (p *Plan) tags(rules []Rule, tags []Tag, now time.Time) {
	left := slices.Clone(tags)
	slices.SortFunc(left, func(a, b Tag) int { return cmp.Or(b.Moved.Compare(a.Moved), cmp.Compare(a.Name, b.Name)) })
	for _, rule := range rules {
		var others []Tag
		decided := 0
		for _, tag := range left {
			if !pattern.Any(rule.Tags, tag.Name) {
				others = append(others, tag)
				continue
			}
			if !tag.Immutable && !rule.keeps(tag, decided, now) {
				p.Tags = append(p.Tags, DroppedTag{tag, rule.Name})
			}
			decided++
		}
		left = others
	}
	p.KeptTags = len(tags) - len(p.Tags)
}

// keeps says whether a tag stays before which so many newer ones were decided about.
func (r Rule) keeps(tag Tag, newer int, now time.Time) bool {
	return r.KeepAll || newer < r.KeepNewest || now.Sub(tag.Moved) < time.Duration(r.KeepYounger)
}

func (p *Plan) manifests(rules []Rule, s State, now time.Time) {
	p.Kept = len(s.Manifests)
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.UntaggedAfter > 0 })
	if i < 0 {
		return
	}
	rule := rules[i]
	needed := s.needed(func(m Manifest) bool { return now.Sub(m.Used) < time.Duration(rule.UntaggedAfter) })
	for _, m := range s.Manifests {
		if !needed[m.Digest] {
			p.Manifests = append(p.Manifests, DroppedManifest{m, rule.Name})
		}
	}
	p.Kept -= len(p.Manifests)
}

// needed returns what is tagged, logged or young, and what that needs: the children of an index, the
// subject of a referrer, the referrers of a subject.
func (s State) needed(young func(Manifest) bool) map[oci.Digest]bool {
	byDigest, referrers := map[oci.Digest]Manifest{}, map[oci.Digest][]oci.Digest{}
	work := slices.Clone(s.Logged)
	for _, tag := range s.Tags {
		work = append(work, tag.Digest)
	}
	for _, m := range s.Manifests {
		byDigest[m.Digest] = m
		if m.Subject != "" {
			referrers[m.Subject] = append(referrers[m.Subject], m.Digest)
		}
		if young(m) {
			work = append(work, m.Digest)
		}
	}
	needed := map[oci.Digest]bool{}
	for len(work) > 0 {
		d := work[len(work)-1]
		work = work[:len(work)-1]
		if needed[d] {
			continue
		}
		needed[d] = true
		m := byDigest[d]
		work = append(work, m.Children...)
		work = append(work, referrers[d]...)
		if m.Subject != "" {
			work = append(work, m.Subject)
		}
	}
	return needed
}
