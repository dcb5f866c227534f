package bucket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"davit/internal/s3test"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

func TestBadURLs(t *testing.T) {
	for root, want := range map[string]string{
		"s3://":                           "want s3://BUCKET",
		"s3://b?endpoint=host:9000":       "want http://HOST:PORT",
		"s3://b?endpoint=ftp://host":      "want http://HOST:PORT",
		"s3://b?endpoint=http://":         "want http://HOST:PORT",
		"s3://b?lookup=guess":             "want path or dns",
		"s3://b?endpoint=http://a b:9000": "want",
	} {
		_, err := Open(t.Context(), root)
		if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", root, err, want)
		}
	}
}

// A store that takes every write, whatever its conditions say, is refused.
func TestStoreWithoutConditions(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Etag", `"same"`)
		if r.Method == http.MethodDelete {
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(server.Close)
	_, err := Open(t.Context(), "s3://bucket?endpoint="+server.URL)
	if err == nil || !strings.Contains(err.Error(), "ignores the conditions") {
		t.Errorf("error %v", err)
	}
}

// A client whose registry hangs in the middle of a chunk goes on through another, at once; what the first
// one still sends does no harm.
func TestTakeOver(t *testing.T) {
	p := &places{server: s3test.Start(t, "minio")}
	root := p.next()
	hanging, other := open(t, root), open(t, root)
	ctx := t.Context()
	content := bytes.Repeat([]byte("0123456789"), 3<<20)
	id, err := hanging.CreateUpload(ctx, "sha256")
	if err != nil {
		t.Fatal(err)
	}
	body, feed := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := hanging.AppendUpload(ctx, id, 0, body)
		ended <- err
	}()
	if _, err := feed.Write(content[:20<<20]); err != nil {
		t.Fatal(err)
	}
	offset := waitOffset(t, other, id, 2*partSize)
	end, err := other.AppendUpload(ctx, id, offset, bytes.NewReader(content[offset:]))
	if err != nil || end != int64(len(content)) {
		t.Fatalf("the other appends to %d, %v", end, err)
	}
	fed := make(chan struct{})
	go func() { defer close(fed); _, _ = feed.Write(bytes.Repeat([]byte("x"), 20<<20)) }()
	if err := <-ended; !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("the first one's append: %v", err)
	}
	body.Close() // nobody reads the rest
	<-fed
	d := oci.DigestOf(content)
	if _, err := other.CommitUpload(ctx, id, d); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, hanging, d); !bytes.Equal(got, content) {
		t.Error("the content is mixed")
	}
}

// waitOffset waits until an upload has at least so many bytes.
func waitOffset(t *testing.T, s *Store, id string, least int64) int64 {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		offset, err := s.UploadOffset(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if offset >= least {
			return offset
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatal("the upload does not grow")
	return 0
}

func readAll(t *testing.T, s *Store, d oci.Digest) []byte {
	t.Helper()
	blob, err := s.OpenBlob(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(blob)
	if err = errors.Join(err, blob.Close()); err != nil {
		t.Fatal(err)
	}
	return content
}

// A record that is created again while its empty cell is being buried is there afterwards.
func TestBurialAndCreation(t *testing.T) {
	p := &places{server: s3test.Start(t, "minio")}
	root := p.next()
	one, two := open(t, root), open(t, root)
	ctx := context.WithoutCancel(t.Context())
	for range 30 {
		if err := one.PutRecord(ctx, "k/r", []byte("old")); err != nil {
			t.Fatal(err)
		}
		if err := one.DeleteRecord(ctx, "k/r"); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		group.Go(func() {
			if err := one.expireCells(ctx, time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
		})
		group.Go(func() {
			if _, err := two.SwapRecord(ctx, "k/r", storage.Absent, []byte("new")); err != nil {
				t.Error(err)
			}
		})
		group.Wait()
		if value, err := two.GetRecord(ctx, "k/r"); err != nil || string(value) != "new" {
			t.Fatalf("the record is %q, %v", value, err)
		}
	}
}

// Expiry deletes bytes that nothing leads to, and no others.
func TestExpireData(t *testing.T) {
	p := &places{server: s3test.Start(t, "minio")}
	s, ctx := open(t, p.next()), t.Context()
	content := []byte("content")
	if err := s.PutBlob(ctx, oci.DigestOf(content), content); err != nil {
		t.Fatal(err)
	}
	id, err := s.CreateUpload(ctx, "sha256")
	if err == nil {
		_, err = s.AppendUpload(ctx, id, 0, strings.NewReader("upload"))
	}
	if err == nil {
		_, err = s.putObject(ctx, "data/ORPHAN", []byte("orphan"), condition{})
	}
	if err == nil {
		err = s.expireData(ctx, time.Now().Add(time.Hour))
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.statObject(ctx, "data/ORPHAN"); !errors.Is(err, errNoObject) {
		t.Errorf("the orphan: %v", err)
	}
	if got := readAll(t, s, oci.DigestOf(content)); !bytes.Equal(got, content) {
		t.Errorf("the content is %q", got)
	}
	if _, err := s.CommitUpload(ctx, id, oci.DigestOf([]byte("upload"))); err != nil {
		t.Error(err)
	}
}
