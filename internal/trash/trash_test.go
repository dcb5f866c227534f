package trash

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func TestBin(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "trash")
	if err := os.MkdirAll(filepath.Join(dir, "left-by-a-crash", "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	b, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		tree := filepath.Join(root, "tree")
		if err := os.MkdirAll(filepath.Join(tree, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := b.Put(tree); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(tree); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the tree is still there: %v", err)
		}
	}
	if err := b.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Fatalf("the bin was not emptied: %v, %v", names, err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := b.Wait(t.Context()); err != nil {
		t.Errorf("nothing to wait for: %v", err)
	}
	if err := b.Put(filepath.Join(root, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("put of nothing: %v", err)
	}
}
