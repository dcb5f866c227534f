package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"davit/internal/s3test"
	"davit/oci"
	"davit/registry/storage"
	"davit/registry/storage/bucket"
	"davit/registry/storage/dir"
)

// cluster is three registries that share nothing but where their bytes lie.
type cluster struct {
	t          *testing.T
	registries []*Server
	urls       []string
	store      storage.Store
	retried    atomic.Int64
}

// onEachStore runs a test on a cluster over a directory and on one over a bucket.
func onEachStore(t *testing.T, o Options, test func(*cluster)) {
	t.Run("dir", func(t *testing.T) {
		root := t.TempDir()
		test(newCluster(t, o, func() (storage.Store, error) { return dir.Open(root) }))
	})
	t.Run("bucket", func(t *testing.T) {
		server := s3test.Start(t, "minio")
		test(newCluster(t, o, func() (storage.Store, error) { return bucket.Open(t.Context(), server.Root) }))
	})
}

func newCluster(t *testing.T, o Options, open func() (storage.Store, error)) *cluster {
	c := &cluster{t: t}
	for range 3 {
		store, err := open()
		if err != nil {
			t.Fatal(err)
		}
		registry := New(store, slog.New(slog.DiscardHandler), o)
		server := httptest.NewServer(registry)
		t.Cleanup(server.Close)
		c.registries, c.urls, c.store = append(c.registries, registry), append(c.urls, server.URL), store
	}
	return c
}

// do sends a request to any of the registries.
func (c *cluster) do(method, path string, body []byte, headers ...string) (int, http.Header, string) {
	r, err := http.NewRequest(method, c.urls[rand.IntN(len(c.urls))]+path, bytes.NewReader(body))
	if err != nil {
		c.t.Error(err)
		return 0, nil, ""
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Error(err)
		return 0, nil, ""
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Errorf("%s %s: %v", method, path, err)
	}
	return response.StatusCode, response.Header, string(content)
}

// pushBlob pushes in chunks, each through any registry.
func (c *cluster) pushBlob(repo string, content []byte) (oci.Descriptor, bool) {
	d := oci.Descriptor{MediaType: oci.MediaTypeLayer, Digest: oci.DigestOf(content), Size: int64(len(content))}
	if status, _, _ := c.do("HEAD", "/v2/"+repo+"/blobs/"+string(d.Digest), nil); status == 200 {
		return d, true
	}
	status, header, _ := c.do("POST", "/v2/"+repo+"/blobs/uploads/", nil)
	location := header.Get("Location")
	if status != 202 {
		return d, false
	}
	half := len(content) / 2
	if status, _, _ = c.do("PATCH", location, content[:half]); status != 202 {
		return d, false
	}
	status, _, _ = c.do("PUT", location+"?digest="+string(d.Digest), content[half:])
	return d, status == 201
}

// pushImage pushes as clients do: what the registry misses after all is pushed again.
func (c *cluster) pushImage(repo, tag string, layers ...string) (oci.Digest, []oci.Digest) {
	m := oci.Manifest{SchemaVersion: 2, MediaType: oci.MediaTypeManifest}
	var blobs []oci.Digest
	for range 300 {
		m.Layers, blobs = nil, nil
		all := true
		for _, content := range append([]string{`{"tag":"` + tag + `"}`}, layers...) {
			d, ok := c.pushBlob(repo, []byte(content))
			all = all && ok
			m.Layers, blobs = append(m.Layers, d), append(blobs, d.Digest)
		}
		m.Config, m.Layers = m.Layers[0], m.Layers[1:]
		content, err := json.Marshal(m)
		if err != nil {
			c.t.Error(err)
			return "", nil
		}
		if all {
			status, _, body := c.do("PUT", "/v2/"+repo+"/manifests/"+tag, content, "Content-Type", oci.MediaTypeManifest)
			if status == 201 {
				return oci.DigestOf(content), blobs
			}
			if status != 404 {
				c.t.Errorf("put manifest: %d %s", status, body)
				return "", nil
			}
		}
		c.retried.Add(1)
	}
	c.t.Errorf("image %s of %s cannot be pushed", tag, repo)
	return "", nil
}

// Collectors run in all processes while images are pushed through all of them, with a grace of 100 ms: what
// was acknowledged is whole until it is deleted, and when all is deleted all goes.
func TestCollectorsOfSeveralProcesses(t *testing.T) {
	onEachStore(t, Options{}, func(c *cluster) {
		ctx, stop := context.WithTimeout(t.Context(), 6*time.Second)
		defer stop()
		var collectors, pushers sync.WaitGroup
		var collected, pushed atomic.Int64
		over := make(chan struct{})
		for _, registry := range c.registries {
			registry.refresh = 50 * time.Millisecond
			collectors.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
					}
					done, err := registry.Collect(t.Context(), 0)
					if err != nil {
						c.t.Error(err)
						return
					}
					collected.Add(int64(done.Blobs))
				}
			})
		}
		for p := range 4 {
			pushers.Go(func() {
				for i := 0; ctx.Err() == nil && !c.t.Failed(); i++ {
					c.pushReadDelete(fmt.Sprintf("r%d", p%2), fmt.Sprintf("t%d", p), fmt.Sprintf("layer %d %d", p, i))
					pushed.Add(1)
				}
			})
		}
		pushers.Wait()
		close(over)
		collectors.Wait()
		c.t.Logf("%d images pushed, %d blobs collected meanwhile, %d attempts repeated", pushed.Load(), collected.Load(), c.retried.Load())
		if collected.Load() == 0 || pushed.Load() < 4 {
			c.t.Error("too little happened: the test shows nothing")
		}
		c.registries[0].refresh = 0
		if _, err := c.registries[0].Collect(t.Context(), 0); err != nil {
			c.t.Fatal(err)
		}
		err := c.store.WalkBlobs(t.Context(), func(d oci.Digest, _ int64, _ time.Time) error {
			return fmt.Errorf("blob %s is left", d)
		})
		if err != nil {
			c.t.Fatal(err)
		}
	})
}

func (c *cluster) pushReadDelete(repo, tag, layer string) {
	d, blobs := c.pushImage(repo, tag, "shared", layer)
	if d == "" {
		return
	}
	for range 3 {
		if status, header, body := c.do("GET", "/v2/"+repo+"/manifests/"+tag, nil); status != 200 || header.Get("Docker-Content-Digest") != string(d) {
			c.t.Errorf("tag %s of %s: %d %s", tag, repo, status, body)
		}
		for _, blob := range blobs {
			if status, _, body := c.do("GET", "/v2/"+repo+"/blobs/"+string(blob), nil); status != 200 {
				c.t.Errorf("blob %s of a tagged image: %d %s", blob, status, body)
			}
		}
	}
	if status, _, body := c.do("DELETE", "/v2/"+repo+"/manifests/"+string(d), nil); status != 202 {
		c.t.Errorf("delete: %d %s", status, body)
	}
}

// Two processes move the same tags: every move is in the log, and the log's last is what the tag names.
func TestTagMovesOfSeveralProcesses(t *testing.T) {
	onEachStore(t, Options{HistoryKeep: time.Hour, Immutable: []string{"fixed-*"}}, func(c *cluster) {
		const movers, each = 6, 8
		var moved sync.Map
		var group sync.WaitGroup
		var fixed atomic.Int64
		for mover := range movers {
			group.Go(func() {
				for i := range each {
					index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[],"annotations":{"n":"%d-%d"}}`, oci.MediaTypeIndex, mover, i)
					status, _, body := c.do("PUT", "/v2/app/manifests/v1", index, "Content-Type", oci.MediaTypeIndex)
					if status != 201 {
						c.t.Errorf("move: %d %s", status, body)
					}
					moved.Store(oci.DigestOf(index), true)
					status, _, body = c.do("PUT", fmt.Sprintf("/v2/app/manifests/fixed-%d", i), index, "Content-Type", oci.MediaTypeIndex)
					if status == 201 {
						fixed.Add(1)
					} else if status != 403 {
						c.t.Errorf("move of an immutable tag: %d %s", status, body)
					}
				}
			})
		}
		group.Wait()
		if fixed.Load() != each {
			c.t.Errorf("%d first pushes of %d immutable tags succeeded", fixed.Load(), each)
		}
		_, _, body := c.do("GET", "/davit/v1/app/tags/v1/history", nil)
		var log TagHistory
		if err := json.Unmarshal([]byte(body), &log); err != nil {
			c.t.Fatal(err)
		}
		if len(log.History) != movers*each {
			c.t.Errorf("the log has %d moves of %d", len(log.History), movers*each)
		}
		for i, move := range log.History {
			if _, ok := moved.LoadAndDelete(move.Digest); !ok {
				c.t.Errorf("move %d, to %s, was made twice or by nobody", i, move.Digest)
			}
		}
		_, header, _ := c.do("HEAD", "/v2/app/manifests/v1", nil)
		if now := header.Get("Docker-Content-Digest"); now != string(log.History[0].Digest) {
			c.t.Errorf("the tag names %s, the log's last is %s", now, log.History[0].Digest)
		}
	})
}

// The processes have one key of tokens, whichever comes first.
func TestTokenKeyOfSeveralProcesses(t *testing.T) {
	onEachStore(t, Options{}, func(c *cluster) {
		keys := make([]string, 6)
		var group sync.WaitGroup
		for i := range keys {
			group.Go(func() {
				key, err := tokenKey(t.Context(), c.registries[i%3].store)
				if err != nil {
					c.t.Error(err)
				}
				keys[i] = string(key)
			})
		}
		group.Wait()
		if strings.Count(strings.Join(keys, ""), keys[0]) != len(keys) {
			c.t.Errorf("there are several keys: %q", keys)
		}
	})
}
