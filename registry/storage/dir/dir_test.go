package dir

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"davit/oci"
	"davit/registry/storage"
	"davit/registry/storage/storagetest"
)

// workRoot, when set, makes the test program the process that is killed: it works on that root.
const workRoot = "DAVIT_STORAGE_WORK_ROOT"

func TestMain(m *testing.M) {
	root := os.Getenv(workRoot)
	if root == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // strace counts system calls by thread
	store, err := Open(root)
	if err == nil {
		err = storagetest.Work(context.Background(), store, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func open(t *testing.T) *Store {
	t.Helper()
	store, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store { return open(t) })
}

func TestShared(t *testing.T) {
	storagetest.RunShared(t, func(t *testing.T, n int) []storage.Store {
		root := t.TempDir()
		var stores []storage.Store
		for range n {
			store, err := Open(root)
			if err != nil {
				t.Fatal(err)
			}
			stores = append(stores, store)
		}
		return stores
	})
}

// The process is killed on entering each of the system calls that change the file system.
func TestKilledAtEachStep(t *testing.T) {
	steps := 0
	for _, call := range []string{"fsync", "renameat", "mkdirat", "unlinkat", "write"} {
		n := 1
		for killedAt(t, call, n) {
			n++
		}
		steps += n - 1
	}
	if t.Logf("killed at each of %d steps", steps); steps < 60 {
		t.Fatal("too few: the system calls of this machine have other names")
	}
}

// killedAt kills the work when it enters a system call for the nth time, and says whether it got there.
func killedAt(t *testing.T, call string, n int) bool {
	t.Helper()
	root := t.TempDir()
	cmd := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n), os.Args[0])
	cmd.Env = append(os.Environ(), workRoot+"="+root)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	journal, err := cmd.Output()
	if stderr.Len() > 0 {
		t.Fatalf("%s %d: %s", call, n, stderr.String())
	}
	store, openErr := Open(root)
	if openErr != nil {
		t.Fatal(openErr)
	}
	storagetest.Survived(t, store, journal)
	wantNothingHalfDone(t, store)
	if t.Failed() {
		t.Fatalf("killed at %s %d after:\n%s", call, n, journal)
	}
	return err != nil
}

// wantNothingHalfDone looks past the interface: expiry has left no upload and no file written beside.
func wantNothingHalfDone(t *testing.T, store *Store) {
	t.Helper()
	for _, sub := range []string{"uploads", "new"} {
		entries, err := os.ReadDir(filepath.Join(store.root, sub))
		if err != nil || len(entries) > 0 {
			t.Errorf("%s holds %v (%v)", sub, entries, err)
		}
	}
}

// A machine that goes down may lose bytes at an upload's end, or leave a hash that is not theirs. The
// digest that counts is always that of the bytes that are there.
func TestHashOfOtherBytes(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, s *Store, id string){
		"data truncated": func(t *testing.T, s *Store, id string) {
			if err := os.Truncate(s.uploadPath(id, "data"), 4); err != nil {
				t.Fatal(err)
			}
		},
		"hash torn": func(t *testing.T, s *Store, id string) {
			if err := os.WriteFile(s.uploadPath(id, "hash"), []byte(`{"algo`), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"hash empty": func(t *testing.T, s *Store, id string) {
			if err := os.Truncate(s.uploadPath(id, "hash"), 0); err != nil {
				t.Fatal(err)
			}
		},
		"data ahead of hash": func(t *testing.T, s *Store, id string) {
			file, err := os.OpenFile(s.uploadPath(id, "data"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if _, err := file.WriteString("ahead"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, ctx := open(t), t.Context()
			id, err := s.CreateUpload(ctx, "sha256")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.AppendUpload(ctx, id, 0, strings.NewReader("0123456789")); err != nil {
				t.Fatal(err)
			}
			damage(t, s, id)
			end, err := s.UploadOffset(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.AppendUpload(ctx, id, end, strings.NewReader("end")); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(s.uploadPath(id, "data"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.CommitUpload(ctx, id, oci.DigestOf(data)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// An upload whose process died between making its directory and its files expires too.
func TestHalfMadeUploadExpires(t *testing.T) {
	s := open(t)
	if err := os.Mkdir(s.uploadPath("half", ""), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.ExpireUploads(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	wantNothingHalfDone(t, s)
}
