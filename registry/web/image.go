package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
)

// largestConfig is the largest image configuration that is shown, in bytes.
const largestConfig = 4 << 20

// manifest is a manifest or an index, read for showing.
type manifest struct {
	Digest    oci.Digest
	MediaType string
	Bytes     int // of the document itself
	document
	Image *oci.Image // of an image, when its configuration can be read
}

// document is what a manifest (image-spec, manifest.md) and an index (image-index.md) may hold.
type document struct {
	ArtifactType string            `json:"artifactType"`
	Config       *oci.Descriptor   `json:"config"`
	Layers       []oci.Descriptor  `json:"layers"`
	Manifests    []oci.Descriptor  `json:"manifests"`
	Subject      *oci.Descriptor   `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
}

// load reads a manifest of the repository, without the configuration.
func (v *visit) load(ctx context.Context, d oci.Digest) (*manifest, error) {
	mediaType, content, err := v.p.registry.Manifest(ctx, v.repo, d)
	if err != nil {
		return nil, absent(err, "there is no manifest %s in %s", d, v.repo)
	}
	m := &manifest{Digest: d, MediaType: mediaType, Bytes: len(content)}
	if err := json.Unmarshal(content, &m.document); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", d, err)
	}
	return m, nil
}

// loadImage reads a manifest and, if it is an image's, the configuration.
func (v *visit) loadImage(ctx context.Context, d oci.Digest) (*manifest, error) {
	m, err := v.load(ctx, d)
	if err != nil || !m.IsImage() {
		return m, err
	}
	if m.Image, err = v.config(ctx, *m.Config); errors.Is(err, errdefs.ErrInvalid) || errors.Is(err, errdefs.ErrNotFound) {
		return m, nil // the page says that it is not readable
	}
	return m, err
}

func (v *visit) config(ctx context.Context, d oci.Descriptor) (*oci.Image, error) {
	if d.Size > largestConfig {
		return nil, errdefs.Invalid("the configuration has %d bytes", d.Size)
	}
	blob, err := v.p.registry.OpenBlob(ctx, v.repo, d.Digest)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(blob, largestConfig))
	if err = errors.Join(err, blob.Close()); err != nil {
		return nil, fmt.Errorf("read config %s: %w", d.Digest, err)
	}
	var image oci.Image
	if err := json.Unmarshal(content, &image); err != nil {
		return nil, errdefs.Invalid("read config %s: %w", d.Digest, err)
	}
	return &image, nil
}

// IsIndex says whether it lists manifests.
func (m *manifest) IsIndex() bool { return oci.IsIndex(m.MediaType) }

// IsImage says whether it is something to run, rather than another artifact.
func (m *manifest) IsImage() bool {
	return m.Config != nil && (m.Config.MediaType == oci.MediaTypeConfig || m.Config.MediaType == oci.MediaTypeDockerConfig)
}

// kind says in a word or two what it is.
func (m *manifest) kind() string {
	switch {
	case m.IsIndex():
		n := 0
		for _, child := range m.Manifests {
			if !isAttestation(child) {
				n++
			}
		}
		return count(n, "platform")
	case m.IsImage():
		return "image"
	}
	return m.Type()
}

// Type is what kind of artifact it is.
func (m *manifest) Type() string {
	if m.ArtifactType != "" {
		return m.ArtifactType
	}
	if m.Config != nil {
		return m.Config.MediaType
	}
	return m.MediaType
}

// Total is the size of all content that it names itself.
func (m *manifest) Total() int64 {
	var n int64
	if m.Config != nil {
		n = m.Config.Size
	}
	for _, l := range m.Layers {
		n += l.Size
	}
	return n
}

// isAttestation recognises what buildx puts in an index beside the images.
func isAttestation(d oci.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] == "attestation-manifest"
}

// platformRow is a line of an index.
type platformRow struct {
	oci.Descriptor
	Platform string
	Image    bool // that has files
	Here     bool // in this repository: an index may name what was never pushed
	Total    int64
	Layers   int
}

func (v *visit) platforms(m *manifest) ([]platformRow, error) {
	var rows []platformRow
	for _, child := range m.Manifests[:min(len(m.Manifests), perPage)] {
		row := platformRow{Descriptor: child, Platform: "no platform"}
		if child.Platform != nil {
			row.Platform = child.Platform.String()
		}
		if isAttestation(child) {
			row.Platform = "attestation"
		}
		found, err := v.load(v.Context(), child.Digest)
		if ignoreMissing(err) != nil {
			return nil, err
		}
		if err == nil {
			row.Here, row.Total, row.Layers = true, found.Total(), len(found.Layers)
			row.Image = found.IsImage() && !isAttestation(child)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// step is a line of an image's history: what was done, and the layer that it made.
type step struct {
	Number  int // of the layer, from 1; 0 for a step without one
	Layer   oci.Descriptor
	Command string
	Created time.Time // zero: not known
	Share   int       // of the largest layer, in percent
}

// steps pairs the configuration's history with the manifest's layers.
func (m *manifest) steps() []step {
	var history []oci.History
	if m.Image != nil {
		history = m.Image.History
	}
	var largest int64 = 1
	for _, l := range m.Layers {
		largest = max(largest, l.Size)
	}
	var steps []step
	next := 0
	layer := func(s step) {
		s.Layer, s.Number = m.Layers[next], next+1
		s.Share = int(100 * s.Layer.Size / largest)
		steps = append(steps, s)
		next++
	}
	for _, h := range history {
		s := step{Command: command(h.CreatedBy)}
		if h.Created != nil {
			s.Created = *h.Created
		}
		switch {
		case h.EmptyLayer:
			steps = append(steps, s)
		case next < len(m.Layers):
			layer(s)
		}
	}
	for next < len(m.Layers) {
		layer(step{})
	}
	return steps
}

// command writes a history entry as the Dockerfile had it.
func command(createdBy string) string {
	s := strings.TrimSpace(strings.TrimSuffix(createdBy, "# buildkit"))
	if rest, ok := strings.CutPrefix(s, "/bin/sh -c #(nop) "); ok {
		return strings.TrimSpace(rest)
	}
	s = strings.TrimPrefix(s, "RUN ")
	if rest, ok := strings.CutPrefix(s, "/bin/sh -c "); ok {
		return "RUN " + rest
	}
	return strings.TrimSpace(strings.TrimSuffix(createdBy, "# buildkit"))
}

// resolve returns what a tag or a digest of the repository stands for.
func (v *visit) resolve(reference string) (oci.Digest, error) {
	if strings.Contains(reference, ":") {
		d, err := oci.ParseDigest(reference)
		return d, errdefs.As(errdefs.ErrInvalid, err)
	}
	d, _, err := v.p.registry.Tag(v.Context(), v.repo, reference)
	return d, absent(err, "there is no tag %s in %s", reference, v.repo)
}

// image returns an image of an index or manifest: the one for the platform, or the first there is.
func (v *visit) image(d oci.Digest, platform string) (*manifest, error) {
	m, err := v.loadImage(v.Context(), d)
	if err != nil || !m.IsIndex() {
		return m, err
	}
	wanted := slices.DeleteFunc(slices.Clone(m.Manifests), func(d oci.Descriptor) bool {
		return isAttestation(d) || platform != "" && (d.Platform == nil || d.Platform.String() != platform)
	})
	if len(wanted) == 0 {
		return nil, errdefs.NotFound("there is no image for %s in %s", platform, d)
	}
	m, err = v.loadImage(v.Context(), wanted[0].Digest)
	if err == nil && m.IsIndex() {
		return nil, errdefs.Invalid("the index %s has another index in it", d)
	}
	return m, err
}
