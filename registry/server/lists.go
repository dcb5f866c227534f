package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"davit/oci"
)

// page cuts a sorted list by the query's n and last, and sets the Link header when more follow.
func (r request) page(all []string) ([]string, error) {
	query := r.URL.Query()
	if last := query.Get("last"); last != "" {
		i, found := slices.BinarySearch(all, last)
		if found {
			i++
		}
		all = all[i:]
	}
	if query.Get("n") == "" {
		return all, nil
	}
	n, err := strconv.Atoi(query.Get("n"))
	if err != nil || n < 0 {
		return nil, fail("PAGINATION_INVALID", "n=%q is not a count", query.Get("n"))
	}
	if n >= len(all) {
		return all, nil
	}
	if n > 0 {
		next := url.Values{"n": {strconv.Itoa(n)}, "last": {all[n-1]}}
		r.w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.EscapedPath(), next.Encode()))
	}
	return all[:n], nil
}

func (r request) json(contentType string, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	r.w.Header().Set("Content-Type", contentType)
	r.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = r.w.Write(body) // the client is gone when this fails
	return nil
}

func (s *Server) listTags(r request) error {
	if err := r.repo.exists(r.Context()); err != nil {
		return err
	}
	tags, err := s.store.ListRecords(r.Context(), r.repo.key("_tags"))
	if err != nil {
		return err
	}
	if tags, err = r.page(tags); err != nil {
		return err
	}
	return r.json("application/json", map[string]any{"name": r.repo.name, "tags": tags})
}

// repositories returns the names of all, sorted.
func (s *Server) repositories(ctx context.Context) ([]string, error) {
	keys, err := s.store.ListRecords(ctx, "catalog")
	for i, key := range keys {
		keys[i] = strings.ReplaceAll(key, "!", "/")
	}
	slices.Sort(keys)
	return keys, err
}

func (s *Server) catalog(r request) error {
	keys, err := s.repositories(r.Context())
	if err != nil {
		return err
	}
	if keys, err = r.page(keys); err != nil {
		return err
	}
	return r.json("application/json", map[string]any{"repositories": keys})
}

// listReferrers answers with an index, empty for a digest that nothing refers to.
func (s *Server) listReferrers(r request) error {
	d, err := r.digest()
	if err != nil {
		return err
	}
	all, err := r.repo.referrers(r.Context(), d)
	if err != nil {
		return err
	}
	return r.referrers(all)
}

// referrers answers with those of the artifact type that the client asks for.
func (r request) referrers(all []oci.Descriptor) error {
	if artifactType := r.URL.Query().Get("artifactType"); artifactType != "" {
		all = slices.DeleteFunc(all, func(d oci.Descriptor) bool { return d.ArtifactType != artifactType })
		r.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	r.w.Header().Set("Vary", "Accept")
	if r.Method == http.MethodHead {
		return nil
	}
	return r.json(oci.MediaTypeIndex, oci.Index{SchemaVersion: 2, MediaType: oci.MediaTypeIndex, Manifests: append([]oci.Descriptor{}, all...)})
}
