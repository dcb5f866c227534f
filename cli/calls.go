package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"

	"davit/api/client"
)

// get decodes the engine's answer to a GET.
func (a *app) get(ctx context.Context, path string, query url.Values, out any) error {
	engine, err := a.client()
	if err != nil {
		return err
	}
	return engine.Get(ctx, path, query, out)
}

// post posts in and decodes the answer; both may be nil.
func (a *app) post(ctx context.Context, path string, query url.Values, in, out any) error {
	engine, err := a.client()
	if err != nil {
		return err
	}
	return engine.Post(ctx, path, query, in, out)
}

// delete sends a DELETE and decodes the answer, if out is not nil.
func (a *app) delete(ctx context.Context, path string, query url.Values, out any) error {
	engine, err := a.client()
	if err != nil {
		return err
	}
	return engine.Delete(ctx, path, query, out)
}

// getWith is get with a header.
func (a *app) getWith(ctx context.Context, path string, query url.Values, header client.Header, out any) error {
	engine, err := a.client()
	if err != nil {
		return err
	}
	response, err := engine.Do(ctx, client.Request{Method: "GET", Path: path, Query: query, Header: header})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return fmt.Errorf("decode the engine's answer to GET %s: %w", path, err)
	}
	return nil
}
