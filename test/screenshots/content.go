package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
)

const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

type object = map[string]any

// shelf pushes what the pages are to show.
type shelf struct {
	url string
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (s shelf) send(method, path, contentType string, body []byte) error {
	r, err := http.NewRequest(method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", contentType)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(response.Body)
	if err := response.Body.Close(); err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	return err
}

func (s shelf) blob(repo, mediaType string, content []byte) (object, error) {
	d := digestOf(content)
	err := s.send("POST", "/v2/"+repo+"/blobs/uploads/?digest="+d, "application/octet-stream", content)
	return object{"mediaType": mediaType, "digest": d, "size": len(content)}, err
}

func (s shelf) manifest(repo, tag string, document object) (object, error) {
	content, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	if tag == "" {
		tag = digestOf(content)
	}
	mediaType := document["mediaType"].(string)
	err = s.send("PUT", "/v2/"+repo+"/manifests/"+tag, mediaType, content)
	return object{"mediaType": mediaType, "digest": digestOf(content), "size": len(content)}, err
}

// step is a line of a Dockerfile, with the layer that it makes, if it does.
type step struct {
	command string
	layer   []byte
}

func (s shelf) image(repo, tag, architecture string, config object, steps ...step) (object, error) {
	var layers, history []object
	for _, st := range steps {
		line := object{"created": "2026-11-20T09:30:00Z", "created_by": st.command}
		if st.layer == nil {
			line["empty_layer"] = true
		} else {
			l, err := s.blob(repo, typeLayer, st.layer)
			if err != nil {
				return nil, err
			}
			layers = append(layers, l)
		}
		history = append(history, line)
	}
	text, err := json.Marshal(object{"created": "2026-11-20T09:30:00Z", "os": "linux", "architecture": architecture, "config": config, "history": history})
	if err != nil {
		return nil, err
	}
	c, err := s.blob(repo, typeConfig, text)
	if err != nil {
		return nil, err
	}
	d, err := s.manifest(repo, tag, object{"schemaVersion": 2, "mediaType": typeManifest, "config": c, "layers": layers})
	if err == nil {
		d["platform"] = object{"os": "linux", "architecture": architecture}
	}
	return d, err
}

// layer is a gzipped tar of files with that many bytes of noise; size -1 is a directory.
func layer(seed uint64, files map[string]int) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	noise := rand.NewChaCha8([32]byte{byte(seed)})
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(max(0, files[name])), Typeflag: tar.TypeReg}
		if files[name] < 0 {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		_ = w.WriteHeader(h) // memory takes everything
		_, _ = io.CopyN(w, noise, h.Size)
	}
	_ = w.Close()
	_ = z.Close()
	return out.Bytes()
}

func base(architecture string) step {
	seed := uint64(len(architecture))
	files := map[string]int{
		"bin/busybox": 1_100_000, "etc/passwd": 1200, "etc/group": 690, "etc/os-release": 188, "etc/ssl/certs/ca-certificates.crt": 214_000,
		"lib/ld-musl-x86_64.so.1": 660_000, "usr/bin/env": 48_000, "usr/share/zoneinfo/Europe/Berlin": 2298, "usr/share/zoneinfo/UTC": 114,
		"var/cache/": -1, "var/log/": -1, "tmp/": -1, "home/": -1, "root/": -1, "opt/": -1,
	}
	for i := range 60 {
		files[fmt.Sprintf("usr/lib/libexample%02d.so.1", i)] = 20_000 + 900*i
	}
	return step{"/bin/sh -c #(nop) ADD file:1c1b9a6bd6d1bb21e32f8cd2c1e2a25b9d9a07c3a9f9a4a1 in / ", layer(seed, files)}
}

var service = object{
	"User": "app", "WorkingDir": "/srv/shop", "Entrypoint": []string{"/srv/shop/serve"}, "Cmd": []string{"--listen", ":8080", "--message", "hello world"},
	"ExposedPorts": object{"8080/tcp": object{}, "9090/tcp": object{}}, "Volumes": object{"/var/lib/shop": object{}},
	"Env":    []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "SHOP_CURRENCY=EUR", "SHOP_CACHE=64MiB"},
	"Labels": object{"org.opencontainers.image.source": "https://git.example.com/team/shop", "org.opencontainers.image.revision": "b2f1c55a0c1e4f0dd2a7c58c9d35a87a31d8a0f9", "maintainer": "team-shop@example.com"},
}

func shop(architecture string, version int) []step {
	app := map[string]int{"srv/shop/serve": 900_000 + 30_000*version, "srv/shop/static/logo.svg": 4200, fmt.Sprintf("srv/shop/static/app-%d.js", version): 81_000, "srv/shop/templates/index.html": 3300 + version}
	if version > 1 {
		app["etc/.wh.os-release"] = 0
	}
	return []step{
		base(architecture),
		{"RUN /bin/sh -c apk add --no-cache tini curl libstdc++ && adduser -D -u 1000 app # buildkit", layer(9, map[string]int{"sbin/tini": 60_000, "usr/bin/curl": 260_000, "home/app/.profile": 80})},
		{"WORKDIR /srv/shop", nil},
		{"COPY --chown=app:app dist/ /srv/shop/ # buildkit", layer(uint64(20+version), app)},
		{"ENV SHOP_CURRENCY=EUR SHOP_CACHE=64MiB", nil},
		{"EXPOSE 8080 9090", nil},
		{`CMD ["--listen" ":8080" "--message" "hello world"]`, nil},
	}
}

// fill pushes some of everything.
func (s shelf) fill() error {
	for _, repo := range []string{"library/alpine", "library/postgres", "team/billing", "team/frontend", "team/search-indexer", "tools/ci-runner", "mirror/registry.example.com/very/deep/path/to/an/image"} {
		for _, tag := range []string{"latest", "1.4.2", "1.4.1"} {
			if _, err := s.image(repo, tag, "amd64", service, base("amd64")); err != nil {
				return err
			}
		}
	}
	for version := range 4 {
		if _, err := s.image("team/shop", "latest", "amd64", service, shop("amd64", version)...); err != nil {
			return err
		}
		if _, err := s.image("team/shop", fmt.Sprintf("v1.%d.0", version), "amd64", service, shop("amd64", version)...); err != nil {
			return err
		}
	}
	if err := s.multi(); err != nil {
		return err
	}
	if err := s.send("DELETE", "/v2/team/shop/manifests/v1.0.0", "", nil); err != nil {
		return err
	}
	_, err := s.image("team/evil", `v1`, "amd64", object{"Labels": object{`"><script>alert(1)</script>`: `<img src=x onerror=alert(1)>`}},
		step{"RUN " + `</code><script>document.title='owned'</script>`, layer(3, map[string]int{"<script>alert(1)</script>": 10, "very/" + string(bytes.Repeat([]byte("long-name-"), 24)): 5})})
	return err
}

// multi pushes an index with an attestation and a signature.
func (s shelf) multi() error {
	index := object{"schemaVersion": 2, "mediaType": typeIndex}
	var children []object
	for _, architecture := range []string{"amd64", "arm64", "riscv64"} {
		d, err := s.image("team/shop", "", architecture, service, shop(architecture, 5)...)
		if err != nil {
			return err
		}
		children = append(children, d)
	}
	index["manifests"] = children
	d, err := s.manifest("team/shop", "v2.0.0-multi", index)
	if err != nil {
		return err
	}
	for _, kind := range []string{"application/vnd.dev.cosign.artifact.sig.v1+json", "application/spdx+json"} {
		config, err := s.blob("team/shop", "application/vnd.oci.empty.v1+json", []byte("{}"))
		if err != nil {
			return err
		}
		content, err := s.blob("team/shop", kind, []byte(kind))
		if err != nil {
			return err
		}
		content["annotations"] = object{"org.opencontainers.image.title": "shop.spdx.json"}
		_, err = s.manifest("team/shop", "", object{"schemaVersion": 2, "mediaType": typeManifest, "artifactType": kind, "config": config, "layers": []object{content}, "subject": d})
		if err != nil {
			return err
		}
	}
	return nil
}
