package layer

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"davit/kernel/sys"
	"davit/oci/errdefs"
)

// replay writes the archive that the layer in dir was made of.
func replay(ctx context.Context, dir string, moved []displaced, w io.Writer) error {
	recipe, err := openRecipe(filepath.Join(dir, "recipe.zst"))
	if err != nil {
		return err
	}
	defer recipe.close()
	root, err := sys.Openat(-1, dir, sys.OPath|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(root)
	buf := make([]byte, 128<<10)
	for payloads := 0; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		kind, n, path, err := recipe.next()
		if err != nil {
			return err
		}
		switch kind {
		case recipeEnd:
			return nil
		case recipeRaw:
			_, err = io.CopyN(w, recipe.r, n)
		case recipeFile:
			err = copyFile(root, locate(path, payloads, moved), n, w, buf)
			payloads++
		}
		if err != nil {
			return err
		}
	}
}

// locate returns where, below the layer's directory, the content lies that the recipe's payload of that
// number names path.
func locate(path string, payload int, moved []displaced) string {
	for _, d := range moved { // in the order of the moves
		if payload >= d.Payloads {
			continue
		}
		if path == d.Path {
			return "extra/" + d.extraName()
		}
		if rest, ok := strings.CutPrefix(path, d.Path+"/"); ok {
			return "extra/" + d.extraName() + "/" + rest
		}
	}
	return "fs/" + path
}

// copyFile writes a file's content, which has to be of the given size.
func copyFile(root int, path string, size int64, w io.Writer, buf []byte) error {
	fd, err := sys.OpenBeneath(root, path, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return errdefs.As(errdefs.ErrDataLoss, fmt.Errorf("open %s: %w", path, err))
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	n, err := io.CopyBuffer(onlyWriter{w}, onlyReader{io.LimitReader(f, size)}, buf)
	if err != nil {
		return err
	}
	if n != size {
		return errdefs.New(errdefs.ErrDataLoss, "%s has %d bytes, not %d", path, n, size)
	}
	return nil
}
