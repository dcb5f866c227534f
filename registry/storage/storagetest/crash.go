package storagetest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// rounds is how often Work goes through all kinds of changes.
const rounds = 2

// Work makes every kind of change, one after the other, and writes a line to journal after each that
// succeeded. It runs in a process that will be killed; Survived reads the journal in another.
func Work(ctx context.Context, store storage.Store, journal io.Writer) error {
	for i := range rounds {
		for _, step := range []func() (string, error){
			func() (string, error) { return workBlob(ctx, store, i) },
			func() (string, error) { return workUpload(ctx, store, i) },
			func() (string, error) {
				key := fmt.Sprintf("fresh/%d/r", i)
				return "record " + key + " first", store.PutRecord(ctx, key, []byte("first"))
			},
			func() (string, error) {
				value := fmt.Sprint("round-", i)
				return "record replaced/r " + value, store.PutRecord(ctx, "replaced/r", []byte(value))
			},
			func() (string, error) {
				key := fmt.Sprintf("fresh/%d/r", i)
				return "deleted " + key + " -", store.DeleteRecord(ctx, key)
			},
		} {
			line, err := step()
			if err == nil {
				_, err = fmt.Fprintln(journal, line)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func workBlob(ctx context.Context, store storage.Store, i int) (string, error) {
	content := fmt.Sprint("blob-", i)
	d := oci.DigestOf([]byte(content))
	return "blob " + string(d) + " " + content, store.PutBlob(ctx, d, []byte(content))
}

func workUpload(ctx context.Context, store storage.Store, i int) (string, error) {
	content := fmt.Sprint("upload-", i)
	d := oci.DigestOf([]byte(content))
	id, err := store.CreateUpload(ctx, "sha256")
	if err != nil {
		return "", err
	}
	end, err := store.AppendUpload(ctx, id, 0, strings.NewReader(content[:3]))
	if err != nil {
		return "", err
	}
	if _, err = store.AppendUpload(ctx, id, end, strings.NewReader(content[3:])); err != nil {
		return "", err
	}
	_, err = store.CommitUpload(ctx, id, d)
	return "blob " + string(d) + " " + content, err
}

// Survived checks a store that was opened again after the process of Work was killed: all that the
// journal says is there, every blob matches its digest, nothing stands between work and its repetition,
// and what was left half done expires.
func Survived(t *testing.T, store storage.Store, journal []byte) {
	t.Helper()
	s := &suite{t, t.Context(), store}
	s.journal(journal)
	s.must(store.WalkBlobs(s.ctx, func(d oci.Digest, size int64, _ time.Time) error {
		content, err := readBlob(s.ctx, store, d)
		if err == nil && (oci.DigestOf(content) != d || int64(len(content)) != size) {
			err = fmt.Errorf("blob %s has the content %q", d, content)
		}
		return err
	}))
	var again bytes.Buffer
	if err := Work(s.ctx, store, &again); err != nil {
		s.Fatalf("the work done again: %v", err)
	}
	s.journal(again.Bytes())
	s.must(store.ExpireUploads(s.ctx, time.Now().Add(time.Hour)))
}

// journal checks the last state that the journal gives each thing. The call after the last line may have
// taken effect without being noted, so a record may be one step ahead.
func (s *suite) journal(journal []byte) {
	s.Helper()
	last := map[string][2]string{}
	for lines := bufio.NewScanner(bytes.NewReader(journal)); lines.Scan(); {
		var kind, name, value string
		if _, err := fmt.Sscan(lines.Text(), &kind, &name, &value); err != nil {
			s.Fatalf("journal line %q: %v", lines.Text(), err)
		}
		last[name] = [2]string{kind, value}
	}
	for name, state := range last {
		s.check(state[0], name, state[1])
	}
}

func (s *suite) check(kind, name, want string) {
	s.Helper()
	if kind == "blob" {
		content, err := readBlob(s.ctx, s.store, oci.Digest(name))
		if err != nil || string(content) != want {
			s.Errorf("blob %s: %q, %v; it was stored as %q", name, content, err, want)
		}
		return
	}
	value, err := s.store.GetRecord(s.ctx, name)
	absent := errors.Is(err, errdefs.ErrNotFound)
	switch {
	case err != nil && !absent:
		s.Error(err)
	case kind == "deleted" && !absent:
		s.Errorf("record %s was deleted and is there again", name)
	case kind == "record" && absent && !strings.HasPrefix(name, "fresh/"):
		s.Errorf("record %s is gone; it was stored as %q", name, want)
	case kind == "record" && !absent && string(value) < want:
		s.Errorf("record %s is %q; it was stored as %q", name, value, want)
	}
}
