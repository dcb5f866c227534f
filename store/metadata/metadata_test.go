package metadata

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"davit/oci/errdefs"
)

type named struct {
	Name  string
	Count int
}

func open(t testing.TB, path string) *DB {
	t.Helper()
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := open(t, path)
	table := NewTable[named]("things")
	err := db.View(func(tx *Tx) error { _, err := table.Get(tx, "a"); return err })
	if !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("empty table: %v", err)
	}
	err = db.Update(func(tx *Tx) error {
		return errors.Join(table.Put(tx, "b", named{"bee", 2}), table.Put(tx, "a", named{"ay", 1}), table.Put(tx, "c", named{"sea", 3}),
			table.Delete(tx, "c"), table.Delete(tx, "never"))
	})
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	if err := db.Update(func(tx *Tx) error { return errors.Join(table.Delete(tx, "a"), refused) }); !errors.Is(err, refused) {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	var got []string
	err = db.View(func(tx *Tx) error {
		for key, value := range table.All(tx) {
			got = append(got, fmt.Sprint(key, value))
		}
		_, err := table.Get(tx, "c")
		return err
	})
	if !errors.Is(err, errdefs.ErrNotFound) || strings.Join(got, " ") != "a{ay 1} b{bee 2}" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestLockedNamesTheHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	open(t, path)
	_, err := Open(path)
	if !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{path, fmt.Sprintf("process %d (", os.Getpid()), "--data-root"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestMigrate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := open(t, path)
	table := NewTable[string]("words")
	put := func(key string) func(*Tx) error {
		return func(tx *Tx) error { return table.Put(tx, key, "migrated") }
	}
	failed := errors.New("failed")
	if err := db.migrate([]func(*Tx) error{put("two"), func(*Tx) error { return failed }}); !errors.Is(err, failed) {
		t.Fatalf("error %v", err)
	}
	if v, err := db.version(); v != 1 || err != nil {
		t.Fatalf("version %d, %v after a failed migration", v, err)
	}
	if err := db.migrate([]func(*Tx) error{put("two"), put("three")}); err != nil {
		t.Fatal(err)
	}
	err := db.View(func(tx *Tx) error {
		_, err2 := table.Get(tx, "two")
		_, err3 := table.Get(tx, "three")
		return errors.Join(err2, err3)
	})
	if v, _ := db.version(); v != 3 || err != nil {
		t.Errorf("version %d, %v", v, err)
	}
	if err := db.migrate(nil); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "newer davit") {
		t.Errorf("a newer database: %v", err)
	}
}

func BenchmarkOpen1000Records(b *testing.B) {
	path := filepath.Join(b.TempDir(), "db")
	db := open(b, path)
	table := NewTable[named]("things")
	err := db.Update(func(tx *Tx) error {
		for i := range 1000 {
			if err := table.Put(tx, fmt.Sprint(i), named{strings.Repeat("x", 2000), i}); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		db, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		db.Close()
	}
}

func BenchmarkUpdate(b *testing.B) {
	db := open(b, filepath.Join(b.TempDir(), "db"))
	table := NewTable[named]("things")
	for b.Loop() {
		if err := db.Update(func(tx *Tx) error { return table.Put(tx, "k", named{"n", 1}) }); err != nil {
			b.Fatal(err)
		}
	}
}
