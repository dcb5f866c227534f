package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"davit/oci/errdefs"
	"davit/registry/auth/challenge"
)

// maxList bounds one page of tags or repositories, in bytes.
const maxList = 16 << 20

// Tags returns the repository's tags in the registry's order.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	base, err := r.origin().reach(ctx)
	if err != nil {
		return nil, err
	}
	var tags []string
	next := base.JoinPath("v2", r.name.Path, "tags", "list")
	err = r.pages(ctx, next, r.pullScope(), func(page []byte) error {
		var reply struct {
			Tags []string `json:"tags"`
		}
		err := json.Unmarshal(page, &reply)
		tags = append(tags, reply.Tags...)
		return err
	})
	return tags, explainPull(r.name, err)
}

// Catalog returns the registry's repositories, as far as it lets this user list them.
func (r *Repository) Catalog(ctx context.Context) ([]string, error) {
	base, err := r.origin().reach(ctx)
	if err != nil {
		return nil, err
	}
	var repositories []string
	err = r.pages(ctx, base.JoinPath("v2", "_catalog"), []challenge.Scope{challenge.CatalogScope}, func(page []byte) error {
		var reply struct {
			Repositories []string `json:"repositories"`
		}
		err := json.Unmarshal(page, &reply)
		repositories = append(repositories, reply.Repositories...)
		return err
	})
	return repositories, explainPull(r.name, err)
}

// pages follows a list's Link headers (distribution-spec, "Listing tags").
func (r *Repository) pages(ctx context.Context, next *url.URL, scopes []challenge.Scope, each func([]byte) error) error {
	for next != nil {
		var page []byte
		var link string
		err := r.retry(ctx, func() (err error) {
			page, link, err = r.page(ctx, next, scopes)
			return err
		})
		if err != nil {
			return err
		}
		if err := each(page); err != nil {
			return fmt.Errorf("read list of registry %s: %w", r.name.Domain, err)
		}
		following, err := nextPage(next, link)
		if err != nil {
			return err
		}
		next = following
	}
	return nil
}

func (r *Repository) page(ctx context.Context, u *url.URL, scopes []challenge.Scope) ([]byte, string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.client.o.IdleTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := r.origin().send(ctx, req, scopes)
	if err != nil {
		return nil, "", err
	}
	if resp, err = checked(resp, http.StatusOK); err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(io.LimitReader(resp.Body, maxList))
	return page, resp.Header.Get("Link"), err
}

// nextPage reads `</v2/_catalog?last=b&n=2>; rel="next"`; nil when there is none.
func nextPage(at *url.URL, link string) (*url.URL, error) {
	if link == "" {
		return nil, nil
	}
	target, _, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	next, err := at.Parse(target)
	if !ok || err != nil || next.Host != at.Host || *next == *at {
		return nil, errdefs.Invalid("registry %s sent the bad link %q", at.Host, link)
	}
	return next, nil
}
