package sys

import (
	"errors"
	"os"
	"testing"
)

func TestDyingThreadIsNotTheMainOne(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	failure := errors.New("failure")
	for range 50 {
		err := OnDyingThread(func() error {
			if err := Unshare(NewMount); err != nil {
				return err
			}
			return failure
		})
		if !errors.Is(err, failure) {
			t.Fatal(err)
		}
	}
	if after, err := os.Readlink("/proc/self/ns/mnt"); err != nil || after != before {
		t.Errorf("the program's mount namespace was %s and is %s, %v", before, after, err)
	}
}
