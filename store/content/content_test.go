package content

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"davit/oci"
	"davit/oci/errdefs"
)

func openStore(t testing.TB, root string) *Store {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func randomBlob(n int) ([]byte, oci.Descriptor) {
	b := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(b)
	return b, oci.Descriptor{Digest: oci.DigestOf(b), Size: int64(n)}
}

func mustWriter(t testing.TB, s *Store, desc oci.Descriptor) Writer {
	t.Helper()
	w, err := s.Writer(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func mustWrite(t testing.TB, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

func TestResume(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root)
	b, desc := randomBlob(100_000)
	w := mustWriter(t, s, desc)
	mustWrite(t, w, b[:30_000])
	if err := w.Commit(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("commit of a part: %v", err)
	}
	s = openStore(t, root) // another process goes on
	w = mustWriter(t, s, desc)
	if w.Offset() != 30_000 {
		t.Fatalf("offset %d", w.Offset())
	}
	mustWrite(t, w, b[30_000:60_000])
	partial, err := io.ReadAll(w.Partial())
	if err != nil || !bytes.Equal(partial, b[:30_000]) {
		t.Fatalf("partial: %d bytes, %v", len(partial), err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = mustWriter(t, s, desc)
	mustWrite(t, w, b[60_000:])
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := s.ReadAll(t.Context(), desc, 1<<20)
	if err != nil || !bytes.Equal(got, b) {
		t.Fatalf("read back: %v", err)
	}
	if _, err := s.Writer(t.Context(), desc); !errors.Is(err, ErrExists) {
		t.Errorf("writer of a blob that is there: %v", err)
	}
	if _, err := s.ReadAll(t.Context(), desc, 100); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a limit of 100 bytes let it pass: %v", err)
	}
}

func TestWrongBytes(t *testing.T) {
	s := openStore(t, t.TempDir())
	b, desc := randomBlob(5000)
	wrong := bytes.Clone(b)
	wrong[4000] ^= 1
	w := mustWriter(t, s, desc)
	mustWrite(t, w, wrong)
	if err := w.Commit(t.Context()); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Fatalf("commit of wrong bytes: %v", err)
	}
	w = mustWriter(t, s, desc)
	if w.Offset() != 0 {
		t.Errorf("the wrong bytes were kept")
	}
	if _, err := w.Write(append(wrong, 'x')); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("more bytes than promised: %v", err)
	}
	mustWrite(t, w, wrong[:4500]) // a source that lies and breaks off
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), desc, bytes.NewReader(b)); err != nil {
		t.Errorf("put after a poisoned partial: %v", err)
	}
	if _, err := s.Info(t.Context(), "sha256:../../x"); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a digest that is a path: %v", err)
	}
	if _, err := s.Open(t.Context(), oci.Descriptor{Digest: desc.Digest, Size: 4}); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("open with another size: %v", err)
	}
}

func TestConcurrentWritersOfOneDigest(t *testing.T) {
	s := openStore(t, t.TempDir())
	b, desc := randomBlob(300_000)
	var wg sync.WaitGroup
	var mu sync.Mutex
	wrote := 0
	for range 8 {
		wg.Go(func() {
			w, err := s.Writer(context.Background(), desc)
			if errors.Is(err, ErrExists) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			_, err = w.Write(b[w.Offset():])
			if err := errors.Join(err, w.Commit(context.Background())); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			wrote++
		})
	}
	wg.Wait()
	if wrote != 1 {
		t.Errorf("%d goroutines wrote the blob", wrote)
	}
}

func TestWaitingWriterHonoursContext(t *testing.T) {
	s := openStore(t, t.TempDir())
	_, desc := randomBlob(10)
	w := mustWriter(t, s, desc)
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Writer(ctx, desc); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestNewIngest(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root)
	b, want := randomBlob(1000)
	for range 2 { // the second finds the blob there
		w, err := s.NewIngest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, w, b)
		desc, err := w.Commit(t.Context())
		if err != nil || desc.Digest != want.Digest || desc.Size != want.Size {
			t.Fatalf("commit: %v, %v", desc, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w, err := s.NewIngest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, w, b)
	openStore(t, root) // the process was killed
	if names, _ := filepath.Glob(filepath.Join(root, "ingest", "*")); len(names) != 0 {
		t.Errorf("left in ingest: %v", names)
	}
}

func TestDeleteWalkSweep(t *testing.T) {
	s := openStore(t, t.TempDir())
	var descs []oci.Descriptor
	for i := range 4 {
		desc, err := s.PutBytes(t.Context(), "text/plain", []byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		descs = append(descs, desc)
	}
	if err := s.Delete(t.Context(), descs[0].Digest); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), descs[0].Digest); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("delete again: %v", err)
	}
	release := s.Lease()
	if _, err := s.Info(t.Context(), descs[1].Digest); err != nil {
		t.Fatal(err)
	}
	keep := func(d oci.Digest) bool { return d == descs[2].Digest }
	if swept, err := s.Sweep(t.Context(), keep); err != nil || len(swept) != 1 || swept[0].Digest != descs[3].Digest {
		t.Errorf("swept %v, %v", swept, err)
	}
	release()
	if swept, err := s.Sweep(t.Context(), keep); err != nil || len(swept) != 1 || swept[0].Digest != descs[1].Digest {
		t.Errorf("swept without the lease %v, %v", swept, err)
	}
	left := 0
	for blob, err := range s.Walk(t.Context()) {
		if err != nil || blob.Digest != descs[2].Digest || blob.Size != 1 {
			t.Errorf("walk: %v, %v", blob, err)
		}
		left++
	}
	if left != 1 {
		t.Errorf("%d blobs left", left)
	}
}

// The child of TestKilledWhileWriting: writes the blob and stops at the point that it is told, until it
// is killed.
func TestMain(m *testing.M) {
	point, ok := os.LookupEnv("DAVIT_TEST_STOP_AT")
	if !ok {
		os.Exit(m.Run())
	}
	stop := func(at string) {
		if at == point {
			fmt.Println("reached")
			select {}
		}
	}
	if err := writeUntil(os.Getenv("DAVIT_TEST_ROOT"), stop); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func writeUntil(root string, reached func(string)) error {
	s, err := Open(root)
	if err != nil {
		return err
	}
	s.reached = reached
	b, desc := randomBlob(50_000)
	w, err := s.Writer(context.Background(), desc)
	if err != nil {
		return err
	}
	if _, err := w.Write(b[:20_000]); err != nil {
		return err
	}
	reached("half")
	if _, err := w.Write(b[20_000:]); err != nil {
		return err
	}
	return w.Commit(context.Background())
}

func TestKilledWhileWriting(t *testing.T) {
	b, desc := randomBlob(50_000)
	for point, want := range map[string]int64{"half": 20_000, "complete": 50_000, "synced": 50_000, "renamed": -1} {
		t.Run(point, func(t *testing.T) {
			root := t.TempDir()
			runAndKill(t, root, point)
			s := openStore(t, root)
			if want < 0 {
				if got, err := s.ReadAll(t.Context(), desc, 1<<20); err != nil || !bytes.Equal(got, b) {
					t.Errorf("the renamed blob: %v", err)
				}
				return
			}
			if _, err := s.Info(t.Context(), desc.Digest); !errors.Is(err, errdefs.ErrNotFound) {
				t.Fatalf("a blob is there before its time: %v", err)
			}
			w := mustWriter(t, s, desc)
			if w.Offset() != want {
				t.Errorf("offset %d, want %d", w.Offset(), want)
			}
			mustWrite(t, w, b[w.Offset():])
			if err := w.Commit(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// runAndKill starts a child that writes to root, and kills it at the point.
func runAndKill(t *testing.T, root, point string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DAVIT_TEST_STOP_AT="+point, "DAVIT_TEST_ROOT="+root)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 8)
	_, err = io.ReadFull(out, line)
	if killErr := cmd.Process.Kill(); killErr != nil {
		t.Error(killErr)
	}
	_ = cmd.Wait() // it was killed
	if err != nil || string(line) != "reached\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
}

// skopeo and umoci read the store as it lies.
func TestForeignReadersOfTheLayout(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root)
	manifest := putEmptyImage(t, s)
	manifest.Annotations = map[string]string{"org.opencontainers.image.ref.name": "v1"}
	if err := s.SetIndex(t.Context(), []oci.Descriptor{manifest}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("skopeo", "inspect", "--raw", "oci:"+root+":v1").CombinedOutput()
	if err != nil || !strings.Contains(string(out), oci.MediaTypeConfig) {
		t.Errorf("skopeo: %v: %s", err, out)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("skopeo", "copy", "--insecure-policy", "oci:"+root+":v1", "oci:"+copied+":v1").CombinedOutput(); err != nil {
		t.Errorf("skopeo copy: %v: %s", err, out)
	}
	if out, err := exec.Command("umoci", "stat", "--image", root+":v1").CombinedOutput(); err != nil {
		t.Errorf("umoci: %v: %s", err, out)
	}
}

// putEmptyImage stores an image without layers and returns its manifest.
func putEmptyImage(t *testing.T, s *Store) oci.Descriptor {
	t.Helper()
	config, err := s.PutBytes(t.Context(), oci.MediaTypeConfig, []byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`))
	if err != nil {
		t.Fatal(err)
	}
	b := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`,
		oci.MediaTypeManifest, oci.MediaTypeConfig, config.Digest, config.Size)
	manifest, err := s.PutBytes(t.Context(), oci.MediaTypeManifest, []byte(b))
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}
