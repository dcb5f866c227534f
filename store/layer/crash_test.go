package layer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"davit/oci"
)

// TestMain is also the child of TestKilledWhileUnpacking: it unpacks its standard input.
func TestMain(m *testing.M) {
	root, isChild := os.LookupEnv("DAVIT_TEST_UNPACK_INTO")
	if !isChild {
		os.Exit(m.Run())
	}
	if err := unpackStdin(root, oci.DiffID(os.Getenv("DAVIT_TEST_DIFFID"))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func unpackStdin(root string, id oci.DiffID) error {
	s, err := Open(root, Options{})
	if err != nil {
		return err
	}
	if err := s.Unpack(context.Background(), id, nil, os.Stdin); err != nil {
		return err
	}
	fmt.Println("unpacked")
	select {} // until killed
}

// A process that is killed leaves no layer, or a whole one, and a store that works.
func TestKilledWhileUnpacking(t *testing.T) {
	w := newTar(t)
	for i := range 300 {
		w.dir(fmt.Sprint("d", i)).file(fmt.Sprintf("d%d/f", i), repeat("x", 3000))
	}
	b := w.bytes()
	for _, fed := range []int{0, 512, 300_000, len(b) - 512, len(b)} {
		t.Run(fmt.Sprint(fed), func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "layers")
			unpackAndKill(t, root, b, fed)
			s := openStore(t, root)
			if whole := fed == len(b); s.Has(diffID(b)) != whole {
				t.Errorf("has the layer: %v", !whole)
			}
			if left := leftovers(t, s); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
			mustUnpack(t, s, b)
		})
	}
}

// unpackAndKill feeds a child the first bytes of a tar and kills it when it has read them.
func unpackAndKill(t *testing.T, root string, b []byte, fed int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DAVIT_TEST_UNPACK_INTO="+root, "DAVIT_TEST_DIFFID="+string(diffID(b)))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(in, bytes.NewReader(b[:fed]))
	if err == nil && fed == len(b) {
		in.Close()
		_, err = io.ReadFull(out, make([]byte, len("unpacked")))
	}
	if killErr := cmd.Process.Kill(); killErr != nil {
		t.Error(killErr)
	}
	_ = cmd.Wait() // it was killed
	if err != nil {
		t.Fatal(err)
	}
}
