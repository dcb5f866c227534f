package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"davit/oci"
	"davit/registry/auth/challenge"
)

// TagHistory is the log that a davit registry keeps of a tag, the latest move first.
type TagHistory struct {
	Tag     string
	History []struct {
		Digest oci.Digest // empty where the tag was deleted
		Time   time.Time
		By     string // user or address
	}
}

// History returns the logs of all tags, deleted ones too. Other registries than davit's know no such
// thing: errdefs.ErrNotFound.
func (r *Repository) History(ctx context.Context) ([]TagHistory, error) {
	var reply struct{ Tags []TagHistory }
	err := r.own(ctx, http.MethodGet, "history", r.pullScope(), &reply)
	return reply.Tags, err
}

// TagHistory returns the log of one tag.
func (r *Repository) TagHistory(ctx context.Context, tag string) (TagHistory, error) {
	var reply TagHistory
	err := r.own(ctx, http.MethodGet, "tags/"+tag+"/history", r.pullScope(), &reply)
	return reply, err
}

// Rollback lets a tag name again a digest of its log; one that was deleted comes back.
func (r *Repository) Rollback(ctx context.Context, tag string, d oci.Digest) error {
	var reply TagHistory
	query := url.Values{"digest": {string(d)}}
	return r.own(ctx, http.MethodPost, "tags/"+tag+"/rollback?"+query.Encode(), r.pushScope(), &reply)
}

// own makes a request that only davit's registry knows, under /davit/v1/<repository>/.
func (r *Repository) own(ctx context.Context, method, path string, scopes []challenge.Scope, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, r.client.o.IdleTimeout)
	defer cancel()
	resp, err := r.ask(ctx, r.origin(), method, path, scopes)
	if err != nil {
		return fmt.Errorf("registry %s: %w", r.name.Domain, err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxList)).Decode(reply); err != nil {
		return fmt.Errorf("read answer of registry %s: %w", r.name.Domain, err)
	}
	return nil
}

// ask makes a request below /davit/v1/<repository>/ whose success is 200.
func (r *Repository) ask(ctx context.Context, e *endpoint, method, path string, scopes []challenge.Scope) (*http.Response, error) {
	base, err := e.reach(ctx)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, base.String()+"/davit/v1/"+r.name.Path+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.send(ctx, req, scopes)
	if err != nil {
		return nil, err
	}
	return checked(resp, http.StatusOK)
}
