package client

import (
	"context"
	"net/http"
	"time"

	"davit/oci"
	"davit/registry/auth/challenge"
)

// Retention is what the rules of a davit registry let go of a repository.
type Retention struct {
	Tags []struct {
		Tag    string     `json:"tag"`
		Digest oci.Digest `json:"digest"`
		Moved  time.Time  `json:"moved"`
		Rule   string     `json:"rule"`
	} `json:"tags"`
	Manifests []struct {
		Digest oci.Digest `json:"digest"`
		Used   time.Time  `json:"used"` // pushed, or asked for by digest
		Rule   string     `json:"rule"`
	} `json:"manifests"` // that nothing needs
	KeptTags int `json:"keptTags"`
}

// Retention asks davit's registry what is to go; with now it goes.
func (r *Repository) Retention(ctx context.Context, now bool) (done Retention, err error) {
	if !now {
		return done, r.own(ctx, http.MethodGet, "retention", r.pullScope(), &done)
	}
	return done, r.own(ctx, http.MethodDelete, "retention", []challenge.Scope{challenge.DeleteScope(r.name.Path)}, &done)
}
