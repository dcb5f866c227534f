package ociruntime_test

import (
	"fmt"
	"testing"

	"davit/ociruntime"
)

// BenchmarkLife is a container's whole life with default security, with a network namespace that nobody configures.
func BenchmarkLife(b *testing.B) {
	e := newEnv(b)
	s := e.spec("true")
	for b.Loop() {
		c, err := e.runtime.Create(b.Context(), fmt.Sprintf("c%d", e.n), ociruntime.CreateOptions{Spec: s, Rootfs: e.rootfs})
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := c.Delete(b.Context(), false); err != nil {
			b.Fatal(err)
		}
	}
}
