package client

import (
	"context"
	"net/http"
)

// Usage is what a repository of davit's registry holds, and the quotas that bound it.
type Usage struct {
	Bytes  int64   `json:"bytes"`
	Tags   int     `json:"tags"`
	Quotas []Quota `json:"quotas"`
}

// Quota is a bound, and what is used of it, by this repository or by all that share it.
type Quota struct {
	Name         string   `json:"name"`
	Repositories []string `json:"repositories"` // patterns of those it is for
	Together     bool     `json:"together"`
	Bytes        int64    `json:"bytes"` // 0: any number
	UsedBytes    int64    `json:"usedBytes"`
	Tags         int      `json:"tags"` // 0: any number
	UsedTags     int      `json:"usedTags"`
}

// Usage asks davit's registry what the repository holds.
func (r *Repository) Usage(ctx context.Context) (usage Usage, err error) {
	return usage, r.own(ctx, http.MethodGet, "quota", r.pullScope(), &usage)
}
