package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/scrub"
)

// rot changes the bytes of a blob behind the registry's back.
func rot(t *testing.T, c *cluster, d oci.Digest, content string) {
	t.Helper()
	err := errors.Join(c.store.DeleteBlob(t.Context(), d), c.store.PutBlob(t.Context(), d, []byte(content)))
	if err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) want(status int, method, path string, body []byte, headers ...string) {
	c.t.Helper()
	if got, _, answer := c.do(method, path, body, headers...); got != status {
		c.t.Fatalf("%s %s: status %d, want %d: %s", method, path, got, status, answer)
	}
}

func (c *cluster) image(repo string, layer string) (blob, manifest oci.Digest, content []byte) {
	c.t.Helper()
	desc, ok := c.pushBlob(repo, []byte(layer))
	if !ok {
		c.t.Fatal("push fails")
	}
	config := desc
	config.MediaType = oci.MediaTypeConfig
	content, err := json.Marshal(oci.Manifest{SchemaVersion: 2, MediaType: oci.MediaTypeManifest, Config: config, Layers: []oci.Descriptor{desc}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.want(201, "PUT", "/v2/"+repo+"/manifests/v", content, "Content-Type", oci.MediaTypeManifest)
	return desc.Digest, oci.DigestOf(content), content
}

// A damaged blob and a damaged manifest are found, not served, kept for whoever wants to look, and whole
// again after the next push.
func TestScrub(t *testing.T) {
	onEachStore(t, Options{}, func(c *cluster) {
		ctx := c.t.Context()
		registry := c.registries[0]
		sound, _, _ := c.image("sound", strings.Repeat("sound", 1000))
		layer, manifest, _ := c.image("app", "precious bytes")
		if report, err := registry.Scrub(ctx, 0); err != nil || report.Blobs != 4 || len(report.Damaged) != 0 {
			c.t.Fatalf("scrub of a sound store: %+v, %v", report, err)
		}
		rot(c.t, c, layer, "precious bites")
		rot(c.t, c, manifest, "{}")
		report, err := registry.Scrub(ctx, 0)
		if err != nil || len(report.Damaged) != 2 || len(report.Unreadable) != 0 {
			c.t.Fatalf("%+v, %v", report, err)
		}
		c.want(404, "GET", "/v2/app/blobs/"+string(layer), nil)
		c.want(404, "HEAD", "/v2/app/blobs/"+string(layer), nil)
		c.want(200, "GET", "/v2/sound/blobs/"+string(sound), nil)
		if holders, err := registry.Holders(ctx, layer); err != nil || strings.Join(holders, " ") != "app" {
			c.t.Errorf("holders %v, %v", holders, err)
		}
		for _, r := range c.registries {
			r.refresh = 0
		}
		if _, err := registry.Collect(ctx, 0); err != nil {
			c.t.Fatal(err)
		}
		if _, err := c.store.StatBlob(ctx, oci.DigestOf([]byte("precious bites"))); err != nil {
			c.t.Errorf("the damaged bytes are not kept: %v", err)
		}
		c.image("app", "precious bytes")
		c.want(200, "GET", "/v2/app/blobs/"+string(layer), nil)
		if report, err = registry.Scrub(ctx, 0); err != nil || len(report.Repaired) != 2 || len(report.Damaged) != 0 {
			c.t.Errorf("after the push: %+v, %v", report, err)
		}
		if aside, err := scrub.Aside(ctx, c.store); err != nil || len(aside) != 0 {
			c.t.Errorf("still aside: %v, %v", aside, err)
		}
		_, text := metricsOf(c)
		for _, line := range []string{"davit_registry_damaged_blobs_total 2\n", "davit_registry_repaired_blobs_total 2\n", "davit_registry_scrubs_total 3\n"} {
			if !strings.Contains(text, line) {
				c.t.Errorf("metrics lack %q", line)
			}
		}
	})
}

func metricsOf(c *cluster) (int, string) {
	response, err := http.Get(c.urls[0] + "/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

// A manifest that is damaged is not served even before a scrub comes by.
func TestDamagedManifestIsNotServed(t *testing.T) {
	onEachStore(t, Options{}, func(c *cluster) {
		_, manifest, content := c.image("app", "layer")
		rot(c.t, c, manifest, "{}")
		for range 6 {
			c.want(404, "GET", "/v2/app/manifests/v", nil)
		}
		c.want(201, "PUT", "/v2/app/manifests/v", content, "Content-Type", oci.MediaTypeManifest)
		c.want(200, "GET", "/v2/app/manifests/v", nil)
	})
}

// Whoever pushes the right bytes while the wrong ones are put aside keeps them.
func TestPushBesideScrub(t *testing.T) {
	f := start(t, nil)
	content := strings.Repeat("right", 50_000)
	d := f.pushBlob("app", content).Digest
	for range 20 {
		err := errors.Join(f.store.DeleteBlob(t.Context(), d), f.store.PutBlob(t.Context(), d, bytes.Repeat([]byte("w"), 200_000)))
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		group.Go(func() {
			if _, _, err := scrub.SetAside(t.Context(), f.store, d); err != nil {
				t.Error(err)
			}
		})
		group.Go(func() {
			id, err := f.store.CreateUpload(t.Context(), "sha256")
			if err == nil {
				_, err = f.store.AppendUpload(t.Context(), id, 0, strings.NewReader(content))
			}
			if err == nil {
				_, err = f.store.CommitUpload(t.Context(), id, d)
			}
			if err != nil {
				t.Error(err)
			}
		})
		group.Wait()
		if _, got := f.want(200, "GET", "/v2/app/blobs/"+string(d), nil); got != content {
			t.Fatal("what was pushed is not what is served")
		}
	}
}

func TestScrubKeepsToItsRate(t *testing.T) {
	f := start(t, nil)
	f.pushBlob("app", strings.Repeat("x", 300_000))
	began := time.Now()
	if report, err := f.registry.Scrub(t.Context(), 1_000_000); err != nil || report.Bytes != 300_000 {
		t.Fatalf("%+v, %v", report, err)
	}
	if took := time.Since(began); took < 290*time.Millisecond {
		t.Errorf("300 kB at 1 MB/s took %s", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := f.registry.Scrub(ctx, 1000); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a scrub that is ended returns %v", err)
	}
}

func TestScrubRoot(t *testing.T) {
	f := start(t, nil)
	d := f.pushBlob("team/app", "blob").Digest
	var out strings.Builder
	run := func() error {
		out.Reset()
		return ScrubRoot(t.Context(), f.root, 0, &out, slog.New(slog.DiscardHandler))
	}
	if err := run(); err != nil || out.String() != "1 blobs, 4 bytes: 0 damaged, 0 unreadable, 0 repaired\n" {
		t.Fatalf("%q, %v", out.String(), err)
	}
	rot(t, &cluster{store: f.store}, d, "blop")
	if err := run(); !errors.Is(err, errdefs.ErrDataLoss) || !strings.Contains(out.String(), "damaged "+string(d)) || !strings.Contains(out.String(), "team/app") {
		t.Fatalf("%q, %v", out.String(), err)
	}
}
