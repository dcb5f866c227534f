package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	for i, write := range []func(string, []byte, os.FileMode) error{Write, WriteUnsynced, Write} {
		want := string(rune('a' + i))
		if err := write(name, []byte(want), 0o640); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(name)
		info, statErr := os.Stat(name)
		if err != nil || statErr != nil || string(b) != want || info.Mode().Perm() != 0o640 {
			t.Errorf("%q, %v, %v, %v", b, info.Mode(), err, statErr)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "d"), []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 2 {
		t.Errorf("a failed write left something: %v, %v", names, err)
	}
}
