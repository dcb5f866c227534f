package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"davit/image"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
)

// maxManifest is the most that is read of a manifest, index or configuration, in bytes.
const maxManifest = 8 << 20

// inspectDistribution resolves a reference and reads which platforms there are behind it.
func inspectDistribution(ctx context.Context, source image.Source, r ref.Ref) (oci.Descriptor, []oci.Platform, error) {
	r = r.WithDefaultTag()
	name := r.Tag
	if r.Digest != "" {
		name = string(r.Digest)
	}
	desc, err := source.Resolve(ctx, name)
	if err != nil {
		return oci.Descriptor{}, nil, err
	}
	if oci.IsIndex(desc.MediaType) {
		var index oci.Index
		if err := fetchJSON(ctx, source, desc, &index); err != nil {
			return oci.Descriptor{}, nil, err
		}
		var platforms []oci.Platform
		for _, m := range index.Manifests {
			if m.Platform != nil {
				platforms = append(platforms, *m.Platform)
			}
		}
		return desc, platforms, nil
	}
	var manifest oci.Manifest
	if err := fetchJSON(ctx, source, desc, &manifest); err != nil {
		return oci.Descriptor{}, nil, err
	}
	var config oci.Image
	if err := fetchJSON(ctx, source, manifest.Config, &config); err != nil {
		return oci.Descriptor{}, nil, err
	}
	return desc, []oci.Platform{config.Platform()}, nil
}

func fetchJSON(ctx context.Context, source image.Source, desc oci.Descriptor, into any) error {
	body, err := source.Fetch(ctx, desc, 0)
	if err != nil {
		return err
	}
	defer body.Close()
	b, err := io.ReadAll(oci.Verify(io.LimitReader(body, maxManifest), desc))
	if err != nil {
		return fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return errdefs.New(errdefs.ErrDataLoss, "read %s: %w", desc.Digest, err)
	}
	return nil
}

func isNotFound(err error) bool { return errors.Is(err, errdefs.ErrNotFound) }
