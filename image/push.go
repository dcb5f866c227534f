package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/pgzip"
	"golang.org/x/sync/errgroup"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/store/metadata"
)

// Push copies the image named r to o.Sink. An image that came from a registry goes out with the same
// manifest, and so the same digest, if all its blobs are here or there; otherwise layers are compressed
// on their way out. Blobs that the registry has are not sent; the manifest goes last.
func (s *Store) Push(ctx context.Context, r ref.Ref, o PushOptions) (Pushed, error) {
	r = r.WithDefaultTag()
	if r.Digest != "" {
		return Pushed{}, errdefs.Invalid("cannot push a digest reference")
	}
	img, err := s.Resolve(ctx, r.Familiar(), o.Platform)
	if errors.Is(err, errdefs.ErrNotFound) && o.Platform == nil {
		return Pushed{}, errdefs.NotFound("An image does not exist locally with the tag: %s", r.FamiliarName())
	}
	if err != nil {
		return Pushed{}, err
	}
	if err := s.Ensure(ctx, img); err != nil {
		return Pushed{}, err
	}
	p := &pusher{store: s, sink: o.Sink, to: r, img: img, report: newReporter(o.Progress)}
	p.report.status("", fmt.Sprintf("The push refers to repository [%s]", r.Name()))
	desc, err := p.push(ctx)
	if err != nil {
		return Pushed{}, err
	}
	pushed := Pushed{Tag: r.Tag, Digest: desc.Digest, Size: desc.Size}
	p.report.status("", fmt.Sprintf("%s: digest: %s size: %d", pushed.Tag, pushed.Digest, pushed.Size))
	_, err = s.record(ctx, img.ID, imageRecord{Manifest: img.Manifest, Layers: img.Layers}, desc, []ref.Ref{r.WithDigest(desc.Digest)}, ByTag)
	return pushed, err
}

// pusher is one push.
type pusher struct {
	store  *Store
	sink   Sink
	to     ref.Ref
	img    Image
	report *reporter
}

func (p *pusher) push(ctx context.Context) (oci.Descriptor, error) {
	manifest, err := p.store.Manifest(ctx, p.img)
	if err != nil {
		return oci.Descriptor{}, err
	}
	for _, id := range p.img.Layers {
		p.report.status(oci.Digest(id).Short(), "Preparing")
	}
	layers, err := p.layers(ctx, manifest)
	if err != nil {
		return oci.Descriptor{}, err
	}
	if err := p.blob(ctx, manifest.Config); err != nil {
		return oci.Descriptor{}, fmt.Errorf("push image configuration: %w", err)
	}
	desc, content, err := p.manifest(ctx, manifest, layers)
	if err != nil {
		return oci.Descriptor{}, err
	}
	return desc, p.sink.PutManifest(ctx, p.to.Tag, desc, content)
}

// layers brings every layer there, several at once, and returns as which blobs.
func (p *pusher) layers(ctx context.Context, m oci.Manifest) ([]oci.Descriptor, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.store.o.Uploads)
	sent := make([]oci.Descriptor, len(m.Layers))
	first := map[oci.DiffID]int{} // a layer that occurs twice is sent once
	for i := range m.Layers {
		if _, twice := first[p.img.Layers[i]]; twice {
			continue
		}
		first[p.img.Layers[i]] = i
		group.Go(func() (err error) {
			sent[i], err = p.layer(ctx, m.Layers[i], p.img.Layers[:i+1])
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, id := range p.img.Layers {
		sent[i] = sent[first[id]]
	}
	return sent, nil
}

// manifest returns the image's own manifest if exactly its blobs went, else one of those that did.
func (p *pusher) manifest(ctx context.Context, m oci.Manifest, layers []oci.Descriptor) (oci.Descriptor, []byte, error) {
	desc := p.img.Manifest
	same := true
	for i := range layers {
		same = same && layers[i].Digest == m.Layers[i].Digest
	}
	if !same {
		m = oci.Manifest{SchemaVersion: 2, MediaType: oci.MediaTypeManifest, Config: m.Config, Layers: layers, Annotations: m.Annotations}
		m.Config.MediaType = oci.MediaTypeConfig
		for i := range m.Layers {
			m.Layers[i].MediaType = ociLayerType(m.Layers[i].MediaType)
		}
		var err error
		if desc, err = p.store.putManifest(ctx, m); err != nil {
			return oci.Descriptor{}, nil, err
		}
	}
	content, err := p.store.o.Content.ReadAll(ctx, desc, maxConfig)
	if err != nil {
		return oci.Descriptor{}, nil, fmt.Errorf("read manifest %s: %w", desc.Digest, err)
	}
	return desc, content, nil
}

// ociLayerType translates Docker's names, which an OCI manifest should not hold.
func ociLayerType(mediaType string) string {
	switch mediaType {
	case oci.MediaTypeDockerLayer:
		return oci.MediaTypeLayer
	case oci.MediaTypeDockerLayerGz, oci.MediaTypeDockerForeign:
		return oci.MediaTypeLayerGzip
	}
	return mediaType
}

// layer brings one layer there in one of the forms it is known in: one that is there, one that another
// repository lends, one whose blob is here, or a new one.
func (p *pusher) layer(ctx context.Context, own oci.Descriptor, chain []oci.DiffID) (oci.Descriptor, error) {
	diffID := chain[len(chain)-1]
	id := oci.Digest(diffID).Short()
	forms, err := p.forms(own, diffID)
	if err != nil {
		return oci.Descriptor{}, err
	}
	sent, how, err := p.existing(ctx, forms)
	if err == nil && sent.Digest == "" {
		how = "Pushed"
		sent, err = p.upload(ctx, forms, chain)
	}
	if err != nil {
		return oci.Descriptor{}, fmt.Errorf("push layer %s: %w", id, err)
	}
	p.report.status(id, how)
	err = p.store.o.DB.Update(func(tx *metadata.Tx) error { return rememberForm(tx, diffID, sent, p.to.Name()) })
	if err != nil {
		return oci.Descriptor{}, fmt.Errorf("record where layer %s is: %w", id, err)
	}
	return sent, nil
}

// forms returns the compressed forms in which a layer is known, the manifest's own first.
func (p *pusher) forms(own oci.Descriptor, id oci.DiffID) ([]layerForm, error) {
	var rec layerRecord
	err := p.store.o.DB.View(func(tx *metadata.Tx) (err error) {
		rec, err = layerRecordOf(tx, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look up forms of layer %s: %w", oci.Digest(id).Short(), err)
	}
	if string(own.Digest) == string(id) {
		return rec.Forms, nil // the manifest speaks of the plain tar
	}
	forms := []layerForm{{Descriptor: own}}
	for _, form := range rec.Forms {
		if form.Descriptor.Digest == own.Digest {
			forms[0].Repositories = form.Repositories
		} else {
			forms = append(forms, form)
		}
	}
	return forms, nil
}

// existing finds a form that the repository has, or can mount from another.
func (p *pusher) existing(ctx context.Context, forms []layerForm) (sent oci.Descriptor, how string, err error) {
	for _, form := range forms {
		has, err := p.sink.Has(ctx, form.Descriptor)
		if err != nil {
			return oci.Descriptor{}, "", err
		}
		if has {
			return form.Descriptor, "Layer already exists", nil
		}
	}
	for _, form := range forms {
		for _, repository := range form.Repositories {
			from, err := ref.Parse(repository)
			if err != nil || from.Domain != p.to.Domain || from.Path == p.to.Path {
				continue
			}
			mounted, err := p.sink.Mount(ctx, form.Descriptor, from)
			if err != nil {
				return oci.Descriptor{}, "", err
			}
			if mounted {
				return form.Descriptor, "Mounted from " + from.Path, nil
			}
		}
	}
	return oci.Descriptor{}, "", nil
}

// upload sends a form whose blob is here, or compresses the layer's tar on the way.
func (p *pusher) upload(ctx context.Context, forms []layerForm, chain []oci.DiffID) (oci.Descriptor, error) {
	for _, form := range forms {
		if _, err := p.store.o.Content.Info(ctx, form.Descriptor.Digest); err == nil {
			return form.Descriptor, p.send(ctx, form.Descriptor, oci.Digest(chain[len(chain)-1]).Short())
		}
	}
	diffID := chain[len(chain)-1]
	total := p.store.tarSizes(chain[len(chain)-1:])[diffID]
	sent, err := p.sink.Upload(ctx, oci.Descriptor{MediaType: oci.MediaTypeLayerGzip}, func() (io.ReadCloser, error) {
		return p.store.compressed(ctx, chain, func(tar io.Writer) io.Writer {
			return io.MultiWriter(tar, &pushCounter{p.report, oci.Digest(diffID).Short(), 0, total})
		}), nil
	})
	if err != nil {
		return oci.Descriptor{}, err
	}
	return oci.Descriptor{MediaType: oci.MediaTypeLayerGzip, Digest: sent.Digest, Size: sent.Size}, nil
}

// blob sends a blob of the content store unless it is there.
func (p *pusher) blob(ctx context.Context, desc oci.Descriptor) error {
	has, err := p.sink.Has(ctx, desc)
	if err != nil || has {
		return err
	}
	return p.send(ctx, desc, "")
}

func (p *pusher) send(ctx context.Context, desc oci.Descriptor, id string) error {
	_, err := p.sink.Upload(ctx, desc, func() (io.ReadCloser, error) {
		blob, err := p.store.o.Content.Open(ctx, desc)
		if err != nil || id == "" {
			return blob, err
		}
		counted := &counter{Reader: blob, report: p.report, id: id, status: "Pushing", total: desc.Size}
		return readCloser{counted, blob}, nil
	})
	return err
}

type readCloser struct {
	io.Reader
	io.Closer
}

// pushCounter reports the bytes of a tar that went into the compressor.
type pushCounter struct {
	report  *reporter
	id      string
	current int64
	total   int64
}

// Write implements io.Writer.
func (c *pushCounter) Write(b []byte) (int, error) {
	c.current += int64(len(b))
	c.report.bytes(c.id, "Pushing", c.current, c.total)
	return len(b), nil
}

// The compressor's settings decide the bytes: with these, the same tar always gives the same blob.
const (
	gzipLevel  = pgzip.DefaultCompression
	gzipBlock  = 1 << 20 // bytes
	gzipBlocks = 4       // at once
)

// compressed returns the gzip of the topmost layer's tar, made while it is read. Closing it ends that.
// observe, if not nil, wraps the writer that takes the tar.
func (s *Store) compressed(ctx context.Context, chain []oci.DiffID, observe func(io.Writer) io.Writer) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		zip, err := pgzip.NewWriterLevel(w, gzipLevel)
		if err == nil {
			err = zip.SetConcurrency(gzipBlock, gzipBlocks)
		}
		if err == nil {
			var tar io.Writer = zip
			if observe != nil {
				tar = observe(zip)
			}
			err = errors.Join(s.o.Layers.Tar(ctx, tar, chain...), zip.Close())
		}
		w.CloseWithError(err)
	}()
	return r
}
