package bucket

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"davit/internal/s3test"
	"davit/registry/storage"
	"davit/registry/storage/storagetest"
)

// places makes a new and empty place in a server's bucket each time.
type places struct {
	server s3test.Server
	count  atomic.Int64
}

func (p *places) next() string {
	return strings.Replace(p.server.Root, "?", fmt.Sprintf("/place/%d?", p.count.Add(1)), 1)
}

func open(t *testing.T, root string) *Store {
	t.Helper()
	store, err := Open(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestConformance(t *testing.T) {
	for _, name := range []string{"minio", "versitygw"} {
		t.Run(name, func(t *testing.T) {
			p := &places{server: s3test.Start(t, name)}
			storagetest.Run(t, func(t *testing.T) storage.Store { return open(t, p.next()) })
			storagetest.RunShared(t, func(t *testing.T, n int) (stores []storage.Store) {
				root := p.next()
				for range n {
					stores = append(stores, open(t, root))
				}
				return stores
			})
		})
	}
}
