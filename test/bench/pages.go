package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	pagesAddress = "127.0.0.1:5996"
	manyTags     = 10_000
)

// pages opens the registry's pages of a repository with many tags, each many times in turns.
func (b *bench) pages() error {
	if err := b.daemon("pages-registry", filepath.Join(b.bin, "davit"), "registry", "serve", "--addr", pagesAddress, "--root", filepath.Join(b.root, "pages")); err != nil {
		return err
	}
	if _, err := command(nil, "curl", "-sf", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "http://"+pagesAddress+"/v2/"); err != nil {
		return err
	}
	if err := pushManyTags(); err != nil {
		return err
	}
	fmt.Printf("\nregistry: pages of a repository with %d tags\n  budget: none; a click should feel immediate (< 100 ms)\n", manyTags)
	for _, page := range []struct{ name, path string }{
		{"repositories", "/"},
		{"tags, first page", "/r/many"},
		{"tags, last page", "/r/many?page=100"},
		{"tags, filtered", "/r/many?q=v1.99"},
		{"tags, newest first", "/r/many?sort=new"},
		{"one tag", "/r/many/-/tag/v1.5000"},
	} {
		took, size, err := timePage(page.path, 30)
		if err != nil {
			return err
		}
		fmt.Printf("  %-20s median %6.1f ms   slowest %6.1f ms   %4d kB\n", page.name, milliseconds(took[len(took)/2]), milliseconds(took[len(took)-1]), size/1000)
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// pushManyTags gives an empty index many names, a hundred in each request, some requests at once.
func pushManyTags() error {
	const workers = 8
	failures := make(chan error, workers)
	for worker := range workers {
		go func() { failures <- pushTags(worker*manyTags/workers, (worker+1)*manyTags/workers) }()
	}
	var err error
	for range workers {
		err = errors.Join(err, <-failures)
	}
	return err
}

func pushTags(from, to int) error {
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(index))
	for first := from; first < to; first += 100 {
		var query []string
		for i := first; i < min(to, first+100); i++ {
			query = append(query, fmt.Sprintf("tag=v1.%d", i))
		}
		r, err := http.NewRequest("PUT", "http://"+pagesAddress+"/v2/many/manifests/"+digest+"?"+strings.Join(query, "&"), bytes.NewReader(index))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		if _, err := answer(r, http.StatusCreated); err != nil {
			return err
		}
	}
	return nil
}

func answer(r *http.Request, want int) (int, error) {
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(response.Body)
	if err := response.Body.Close(); err != nil {
		return 0, err
	}
	if response.StatusCode != want {
		return 0, fmt.Errorf("%s %s: %s: %s", r.Method, r.URL.Path, response.Status, body)
	}
	return len(body), err
}

// timePage returns how long each of n visits took, sorted, and the page's size.
func timePage(path string, n int) (took []time.Duration, size int, err error) {
	for range n {
		r, err := http.NewRequest("GET", "http://"+pagesAddress+path, nil)
		if err != nil {
			return nil, 0, err
		}
		began := time.Now()
		if size, err = answer(r, http.StatusOK); err != nil {
			return nil, 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, size, nil
}
