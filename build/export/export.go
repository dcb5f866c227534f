// Package export makes the configuration of a built image out of its base image's and the steps. It
// is pure.
package export

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"davit/build/plan"
	"davit/oci"
)

// historyComment marks the steps of builds in an image's history, as BuildKit does.
const historyComment = "buildkit.dockerfile.v0"

// Scratch is the empty image for a platform.
func Scratch(p oci.Platform) oci.Image {
	return oci.Image{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
		Config: plan.Scratch().Config,
		RootFS: oci.RootFS{Type: "layers", DiffIDs: []oci.DiffID{}},
	}
}

// Append returns the image after one step more, which made layer, or no layer if that is empty.
func Append(image oci.Image, step plan.Step, layer oci.DiffID, created time.Time) oci.Image {
	created = created.UTC()
	image.Created = &created
	image.Config, image.Author = step.Config, step.Author
	image.Container, image.Comment, image.DockerVersion = "", "", ""
	image.History = append(slices.Clip(image.History), oci.History{
		Created: &created, CreatedBy: step.CreatedBy, Author: step.Author, Comment: historyComment, EmptyLayer: layer == "",
	})
	if layer != "" {
		image.RootFS.DiffIDs = append(slices.Clip(image.RootFS.DiffIDs), layer)
	}
	return image
}

// ID is the digest of an image's configuration.
func ID(image oci.Image) (oci.Digest, error) {
	b, err := json.Marshal(image)
	if err != nil {
		return "", fmt.Errorf("encode image configuration: %w", err)
	}
	return oci.DigestOf(b), nil
}
