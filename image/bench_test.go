package image_test

import (
	"fmt"
	"testing"

	"davit/internal/registrytest"
)

// BenchmarkPull pulls an image of five layers of mixed files from docker-registry on loopback.
func BenchmarkPull(b *testing.B) {
	host := registrytest.Start(b, registrytest.Options{})
	a := newWorld(b)
	var layers []map[string]string
	for l := range byte(5) {
		files := map[string]string{}
		for f := range 200 {
			// Half of it compresses.
			files[fmt.Sprintf("layer%d-file%03d", l, f)] = noise(l, 64<<10) + string(make([]byte, 64<<10))
		}
		layers = append(layers, files)
	}
	img := a.named(host+"/big", layers...)
	a.push(host+"/big", &recorder{})
	b.SetBytes(img.Size)
	for b.Loop() {
		if _, err := newWorld(b).pull(host+"/big", &recorder{}); err != nil {
			b.Fatal(err)
		}
	}
}
