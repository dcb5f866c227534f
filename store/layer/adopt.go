package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"davit/oci"
)

// Adopt turns the upper directory of an unmounted overlay into a layer without copying it, and
// returns the DiffID of its canonical tar (see Pack). upper is gone afterwards. When it lies on another
// file system than the store, it is copied after all.
func (s *Store) Adopt(ctx context.Context, upper string) (oci.DiffID, error) {
	d, err := s.newDraft()
	if err != nil {
		return "", fmt.Errorf("adopt layer: %w", err)
	}
	if err := d.describe(ctx, upper); err != nil {
		return "", errors.Join(fmt.Errorf("adopt layer: %w", err), d.discard())
	}
	err = os.Rename(upper, filepath.Join(d.path, "fs"))
	if errors.Is(err, syscall.EXDEV) {
		return s.adoptCopy(ctx, d, upper)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("adopt layer: %w", err), d.discard())
	}
	if err := d.install(); err != nil {
		return "", fmt.Errorf("adopt layer: %w", err)
	}
	return d.DiffID, nil
}

// adoptCopy is Adopt across file systems.
func (s *Store) adoptCopy(ctx context.Context, d *draft, upper string) (oci.DiffID, error) {
	if err := d.discard(); err != nil {
		return "", err
	}
	id, err := s.ImportDir(ctx, upper, nil)
	if err == nil {
		err = os.RemoveAll(upper)
	}
	return id, err
}

// ImportDir makes a layer of a copy of an overlay upper directory, which stays as it is, without what is at
// the paths of omit, written "/etc/hosts", and below them.
func (s *Store) ImportDir(ctx context.Context, upper string, omit map[string]bool) (oci.DiffID, error) {
	pr, pw := io.Pipe()
	defer pr.Close() // ends the goroutine in any case
	go func() { pw.CloseWithError(packWithout(ctx, pw, upper, omit)) }()
	return s.Import(ctx, nil, pr)
}

// describe fills in the draft's recipe and record from a directory that is to become its content.
func (d *draft) describe(ctx context.Context, dir string) error {
	recipe, err := createRecipe(filepath.Join(d.path, "recipe.zst"))
	if err != nil {
		return err
	}
	h := sha256.New()
	d.Size, d.TarSize, err = packHashed(ctx, dir, h, recipe)
	if err = errors.Join(err, recipe.close()); err != nil {
		return err
	}
	d.DiffID = oci.DiffID(oci.SumDigest("sha256", h))
	d.Root, err = hasRootEntry(dir)
	return err
}

// hasRootEntry says whether Pack writes an entry for the root of dir.
func hasRootEntry(dir string) (bool, error) {
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer syscall.Close(fd)
	e, err := examine(fd, ".")
	if err != nil {
		return false, err
	}
	return !e.plainRoot(), nil
}
