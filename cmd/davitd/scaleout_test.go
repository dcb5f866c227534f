package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"davit/internal/s3test"
	"davit/oci"
	registry "davit/registry/server"
)

// registryArgs, when set, makes the test program "davitd registry" with these arguments.
const registryArgs = "DAVITD_TEST_REGISTRY"

func TestMain(m *testing.M) {
	args := os.Getenv(registryArgs)
	if args == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := serveRegistry(ctx, strings.Fields(args), os.Stderr, log)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process is one registry.
type process struct {
	host string
	cmd  *exec.Cmd
}

func (p process) url() string { return "http://" + p.host }

// serveAll starts registries over one root until the test ends.
func serveAll(t *testing.T, n int, root string, flags ...string) []process {
	t.Helper()
	var all []process
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p := process{host: l.Addr().String(), cmd: exec.Command(os.Args[0])}
		l.Close()
		args := append([]string{"serve", "--addr", p.host, "--root", root, "--cache-dir", t.TempDir()}, flags...)
		p.cmd.Env = append(os.Environ(), registryArgs+"="+strings.Join(args, " "))
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var output bytes.Buffer
		p.cmd.Stderr = &output
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			p.cmd.Process.Kill()
			p.cmd.Wait()
			if t.Failed() {
				t.Logf("%s says:\n%s", p.host, output.String())
			}
		})
		all = append(all, p)
	}
	for _, p := range all {
		waitReady(t, p)
	}
	return all
}

func waitReady(t *testing.T, p process) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		response, err := http.Get(p.url() + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatalf("the registry at %s is not ready after 20 s", p.host)
}

func skopeo(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("skopeo", args...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// layout writes an image of random layers as an OCI layout, and returns its path and manifest's digest.
func layout(t *testing.T, sizes ...int64) (string, oci.Digest) {
	t.Helper()
	dir := t.TempDir()
	write := func(r io.Reader, mediaType string) oci.Descriptor {
		temp, err := os.CreateTemp(dir, "blob")
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		size, err := io.Copy(io.MultiWriter(temp, h), r)
		if err != nil {
			t.Fatal(err)
		}
		d := oci.SumDigest("sha256", h)
		path := filepath.Join(dir, "blobs", "sha256", d.Hex())
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temp.Name(), path); err != nil {
			t.Fatal(err)
		}
		temp.Close()
		return oci.Descriptor{MediaType: mediaType, Digest: d, Size: size}
	}
	value := func(v any) io.Reader {
		content, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.NewReader(content)
	}
	random, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer random.Close()
	m := oci.Manifest{SchemaVersion: 2, MediaType: oci.MediaTypeManifest, Layers: []oci.Descriptor{}}
	for _, size := range sizes {
		m.Layers = append(m.Layers, write(io.LimitReader(random, size), oci.MediaTypeLayer))
	}
	m.Config = write(value(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{}}}), oci.MediaTypeConfig)
	desc := write(value(m), oci.MediaTypeManifest)
	index := map[string]any{"schemaVersion": 2, "manifests": []oci.Descriptor{desc}}
	for name, content := range map[string]io.Reader{"index.json": value(index), "oci-layout": strings.NewReader(`{"imageLayoutVersion":"1.0.0"}`)} {
		b, _ := io.ReadAll(content)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, desc.Digest
}

// What is pushed through one registry is pulled through the others; when one is killed in the middle of a
// push, what it acknowledged is there and the push goes on through another where it was.
func TestRegistriesOverOneBucket(t *testing.T) {
	server := s3test.Start(t, "minio")
	all := serveAll(t, 3, server.Root)
	image, digest := layout(t, 100, 3<<20, 20<<20)
	for i, p := range all {
		name := fmt.Sprintf("team/app%d:v1", i)
		skopeo(t, "copy", "--preserve-digests", "--dest-tls-verify=false", "oci:"+image, "docker://"+p.host+"/"+name)
		for _, other := range all {
			copied := t.TempDir()
			skopeo(t, "copy", "--preserve-digests", "--src-tls-verify=false", "docker://"+other.host+"/"+name, "dir:"+copied)
			content, err := os.ReadFile(filepath.Join(copied, "manifest.json"))
			if err != nil || oci.DigestOf(content) != digest {
				t.Fatalf("%s through %s is %s, %v; want %s", name, other.host, oci.DigestOf(content), err, digest)
			}
		}
	}
	content := bytes.Repeat([]byte("0123456789abcdef"), 4<<20) // 64 MiB
	d := oci.DigestOf(content)
	location := killMidPush(t, all[0], content)
	for i, p := range all[1:] { // what was acknowledged
		for _, name := range []string{"team/app0:v1", "team/app1:v1", "team/app2:v1"} {
			if out := skopeo(t, "inspect", "--raw", "--tls-verify=false", "docker://"+p.host+"/"+name); oci.DigestOf([]byte(out)) != digest {
				t.Errorf("%s through %d: %s", name, i, out)
			}
		}
	}
	offset := offsetOf(t, all[1].url()+location)
	if offset < 8<<20 {
		t.Errorf("%d bytes are kept of those that were sent", offset)
	}
	t.Logf("the push goes on at %d MiB", offset>>20)
	do(t, 202, "PATCH", all[1].url()+location, content[offset:50<<20])
	do(t, 202, "PATCH", all[2].url()+location, content[50<<20:])
	do(t, 201, "PUT", all[1].url()+location+"?digest="+string(d), nil)
	if got := do(t, 200, "GET", all[2].url()+"/v2/team/big/blobs/"+string(d), nil); !bytes.Equal(got, content) {
		t.Error("the blob has other content than what was pushed")
	}
}

// killMidPush kills a registry with SIGKILL while it receives a chunk of which it was sent 40 MiB.
func killMidPush(t *testing.T, p process, content []byte) (location string) {
	t.Helper()
	response, err := http.Post(p.url()+"/v2/team/big/blobs/uploads/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	location = response.Header.Get("Location")
	body, feed := io.Pipe()
	r, err := http.NewRequest("PATCH", p.url()+location, body)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		response, err := http.DefaultClient.Do(r)
		if err == nil {
			response.Body.Close()
		}
		ended <- err
	}()
	if _, err := feed.Write(content[:40<<20]); err != nil {
		t.Fatal(err)
	}
	p.cmd.Process.Kill()
	p.cmd.Wait()
	feed.CloseWithError(io.ErrClosedPipe) // the client sends no more
	if err := <-ended; err == nil {
		t.Fatal("the push ended well though its registry was killed")
	}
	return location
}

func offsetOf(t *testing.T, location string) (offset int) {
	t.Helper()
	response, err := http.Get(location)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	var last int
	if _, err := fmt.Sscanf(response.Header.Get("Range"), "0-%d", &last); err != nil {
		t.Fatalf("%s: %s, Range %q", location, response.Status, response.Header.Get("Range"))
	}
	return last + 1
}

func do(t *testing.T, want int, method, url string, body []byte) []byte {
	t.Helper()
	r, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != want {
		t.Fatalf("%s %s: %s, want %d: %.500s (%v)", method, url, response.Status, want, content, err)
	}
	return content
}

// Tags move through two registries at once, and one is killed meanwhile: the log has every move that was
// acknowledged, once.
func TestTagLogSurvivesAKill(t *testing.T) {
	server := s3test.Start(t, "minio")
	all := serveAll(t, 3, server.Root)
	var mu sync.Mutex
	acknowledged := map[oci.Digest]bool{}
	move := func(p process, n int) error {
		index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[],"annotations":{"n":"%d"}}`, oci.MediaTypeIndex, n)
		r, err := http.NewRequest("PUT", p.url()+"/v2/app/manifests/v1", bytes.NewReader(index))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", oci.MediaTypeIndex)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusCreated {
			return fmt.Errorf("move %d: %s", n, response.Status)
		}
		mu.Lock()
		defer mu.Unlock()
		acknowledged[oci.DigestOf(index)] = true
		return nil
	}
	var group sync.WaitGroup
	for i, p := range all {
		group.Go(func() {
			for n := range 15 {
				err := move(p, 100*i+n)
				if i == 0 && n == 7 {
					go p.cmd.Process.Kill()
				}
				if err != nil && i > 0 {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	var log registry.TagHistory
	if err := json.Unmarshal(do(t, 200, "GET", all[1].url()+"/davit/v1/app/tags/v1/history", nil), &log); err != nil {
		t.Fatal(err)
	}
	for _, m := range log.History {
		delete(acknowledged, m.Digest)
	}
	if len(acknowledged) > 0 || len(log.History) < 38 {
		t.Errorf("%d acknowledged moves are not in the log of %d", len(acknowledged), len(log.History))
	}
}

// With --redirect-blobs the bytes come from the bucket, and clients get the same.
func TestRedirectBlobs(t *testing.T) {
	server := s3test.Start(t, "versitygw")
	p := serveAll(t, 1, server.Root, "--redirect-blobs")[0]
	image, digest := layout(t, 100, 10<<20)
	skopeo(t, "copy", "--preserve-digests", "--dest-tls-verify=false", "oci:"+image, "docker://"+p.host+"/app:v1")
	copied := t.TempDir()
	skopeo(t, "copy", "--preserve-digests", "--src-tls-verify=false", "docker://"+p.host+"/app:v1", "oci:"+copied)
	out := skopeo(t, "inspect", "--raw", "oci:"+copied)
	if oci.DigestOf([]byte(out)) != digest {
		t.Errorf("copied %s", out)
	}
	var m oci.Manifest
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		t.Fatal(err)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Get(p.url() + "/v2/app/blobs/" + string(m.Layers[0].Digest))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if to := response.Header.Get("Location"); response.StatusCode != 307 || strings.Contains(to, p.host) {
		t.Errorf("%s to %q", response.Status, to)
	}
}
