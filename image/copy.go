package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/content"
	"davit/store/layer"
)

// copier brings one image from a Source into the stores: pull and load.
type copier struct {
	store  *Store
	source Source
	report *reporter
	// plainBlobs says to keep also the blobs of layers that are plain tars: they make a broken pull
	// resumable, and cost the disk the same bytes twice.
	plainBlobs bool
	deltas     *deltas // nil: none
}

// copied is an image whose blobs and layers are in the stores, and which has no record yet.
type copied struct {
	id       oci.Digest
	config   oci.Image
	manifest oci.Descriptor
	target   oci.Descriptor
	complete bool // all blobs of the manifest are in the content store
	layers   int  // how many layers had to be unpacked
}

// chosen is an image's manifest and configuration, before its layers come.
type chosen struct {
	desc     oci.Descriptor
	manifest oci.Manifest
	config   oci.Image
}

// choose fetches what target leads to: through indexes to the manifest for the platform, and its
// configuration.
func (c *copier) choose(ctx context.Context, target oci.Descriptor, platform oci.Platform) (chosen, error) {
	const maxDepth = 4 // an index may list indexes
	desc := target
	for range maxDepth {
		b, err := c.small(ctx, desc)
		if err != nil {
			return chosen{}, err
		}
		if !oci.IsIndex(desc.MediaType) {
			return c.withConfig(ctx, desc, b)
		}
		index, err := decodeIndex(b)
		if err != nil {
			return chosen{}, err
		}
		if desc, err = choose(index, platform); err != nil {
			return chosen{}, err
		}
	}
	return chosen{}, errdefs.Invalid("the image index %s is nested more than %d deep", target.Digest, maxDepth)
}

func (c *copier) withConfig(ctx context.Context, desc oci.Descriptor, manifest []byte) (chosen, error) {
	if !oci.IsManifest(desc.MediaType) {
		return chosen{}, errdefs.Invalid("%s is no image: unsupported media type %q", desc.Digest, desc.MediaType)
	}
	m, err := decodeManifest(manifest)
	if err != nil {
		return chosen{}, err
	}
	b, err := c.small(ctx, m.Config)
	if err != nil {
		return chosen{}, err
	}
	config, err := decodeConfig(b, m)
	desc.Platform, desc.Annotations = nil, nil
	return chosen{desc, m, config}, err
}

// small copies a manifest or configuration and returns its verified bytes.
func (c *copier) small(ctx context.Context, desc oci.Descriptor) ([]byte, error) {
	blobs := c.store.o.Content
	if b, err := blobs.ReadAll(ctx, desc, maxConfig); err == nil {
		return b, nil
	} else if !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrDataLoss) {
		return nil, fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	if desc.Size > maxConfig {
		return nil, errdefs.Invalid("%s is larger than the allowed %d bytes", desc.Digest, maxConfig)
	}
	r, err := c.source.Fetch(ctx, desc, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := blobs.Put(ctx, desc, r); err != nil {
		return nil, fmt.Errorf("store %s: %w", desc.Digest, err)
	}
	return blobs.ReadAll(ctx, desc, maxConfig)
}

// layers copies the layers, several at once, lowest first, and says how many had to be unpacked and
// whether each one's blob is kept.
func (c *copier) layers(ctx context.Context, from chosen) (unpacked int, complete bool, err error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.store.o.Downloads)
	kept := make([]bool, len(from.manifest.Layers))
	missing := c.announce(from)
	for _, i := range missing {
		group.Go(func() (err error) {
			diffIDs := from.config.RootFS.DiffIDs[:i+1]
			kept[i], err = c.layer(ctx, from.manifest.Layers[i], diffIDs)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return 0, false, err
	}
	for i, desc := range from.manifest.Layers {
		if !kept[i] {
			_, err := c.store.o.Content.Info(ctx, desc.Digest)
			kept[i] = err == nil
		}
	}
	return len(missing), !slices.Contains(kept, false), nil
}

// announce reports the layers in order and returns which ones are not here.
func (c *copier) announce(from chosen) []int {
	var missing []int
	for i, desc := range from.manifest.Layers {
		if c.store.o.Layers.Has(from.config.RootFS.DiffIDs[:i+1]...) {
			c.report.status(desc.Digest.Short(), "Already exists")
			continue
		}
		c.report.status(desc.Digest.Short(), "Pulling fs layer")
		missing = append(missing, i)
	}
	for n, i := range missing {
		if n >= c.store.o.Downloads {
			c.report.status(from.manifest.Layers[i].Digest.Short(), "Waiting")
		}
	}
	return missing
}

// layer copies one layer. Content that is not what its digest says is fetched once more from the start.
func (c *copier) layer(ctx context.Context, desc oci.Descriptor, diffIDs []oci.DiffID) (kept bool, err error) {
	if done, err := c.deltaLayer(ctx, desc, diffIDs); done || err != nil {
		return false, err
	}
	plain := string(desc.Digest) == string(diffIDs[len(diffIDs)-1])
	if plain && !c.plainBlobs {
		return false, c.plainLayer(ctx, desc, diffIDs)
	}
	for attempt := 1; ; attempt++ {
		kept, err = c.blobLayer(ctx, desc, diffIDs)
		if err == nil {
			c.report.status(desc.Digest.Short(), "Pull complete")
			return kept, nil
		}
		if attempt == 2 || !errors.Is(err, errBadBlob) {
			return false, err
		}
		c.store.o.Log.WarnContext(ctx, "layer has wrong content, fetching it again", "digest", desc.Digest, "error", err)
		c.report.status(desc.Digest.Short(), "Retrying")
	}
}

// plainLayer unpacks a tar that is not kept as a blob.
func (c *copier) plainLayer(ctx context.Context, desc oci.Descriptor, diffIDs []oci.DiffID) error {
	r, err := c.source.Fetch(ctx, desc, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	id := desc.Digest.Short()
	counted := &counter{Reader: r, report: c.report, id: id, status: "Extracting", total: desc.Size}
	if err := c.unpack(ctx, diffIDs, counted); err != nil {
		return fmt.Errorf("unpack layer %s: %w", desc.Digest.Short(), err)
	}
	c.report.status(id, "Pull complete")
	return nil
}

// errBadBlob marks a blob whose bytes are not those of its digest.
var errBadBlob = errors.New("filesystem layer verification failed")

// blobLayer unpacks a blob while it arrives in the content store. kept is false when somebody else
// unpacked the layer meanwhile from another blob: the rest is then not fetched.
func (c *copier) blobLayer(ctx context.Context, desc oci.Descriptor, diffIDs []oci.DiffID) (kept bool, err error) {
	w, err := c.store.o.Content.Writer(ctx, desc)
	if errors.Is(err, content.ErrExists) {
		return true, c.storedLayer(ctx, desc, diffIDs)
	}
	if err != nil {
		return false, fmt.Errorf("store layer %s: %w", desc.Digest.Short(), err)
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	in := &arrival{ctx: ctx, copier: c, desc: desc, w: w, partial: w.Partial(), at: w.Offset()}
	defer func() { err = errors.Join(err, in.Close()) }()

	unpackErr := c.unpack(ctx, diffIDs, in)
	if in.failed != nil {
		return false, in.failed // the source's or the disk's: the partial stays for the next attempt
	}
	if unpackErr == nil && !in.begun {
		return false, nil
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return false, err
	}
	c.report.status(desc.Digest.Short(), "Verifying Checksum")
	if err := w.Commit(ctx); errors.Is(err, errdefs.ErrDataLoss) {
		return false, fmt.Errorf("%w for digest %s: %w", errBadBlob, desc.Digest, err)
	} else if err != nil {
		return false, fmt.Errorf("store layer %s: %w", desc.Digest.Short(), err)
	}
	if unpackErr != nil {
		return false, fmt.Errorf("unpack layer %s: %w", desc.Digest.Short(), unpackErr)
	}
	return true, nil
}

// storedLayer unpacks a blob that the content store has.
func (c *copier) storedLayer(ctx context.Context, desc oci.Descriptor, diffIDs []oci.DiffID) error {
	blob, err := c.store.o.Content.Open(ctx, desc)
	if err != nil {
		return fmt.Errorf("open layer %s: %w", desc.Digest.Short(), err)
	}
	defer blob.Close()
	c.report.status(desc.Digest.Short(), "Download complete")
	counted := &counter{Reader: blob, report: c.report, id: desc.Digest.Short(), status: "Extracting", total: desc.Size}
	if err := c.unpack(ctx, diffIDs, counted); err != nil {
		return fmt.Errorf("unpack layer %s: %w", desc.Digest.Short(), err)
	}
	return nil
}

// unpack decompresses what r holds into the layer store. When it returns, r is no longer read.
func (c *copier) unpack(ctx context.Context, diffIDs []oci.DiffID, r io.Reader) error {
	lazy := &decompressed{gate: &gate{r: r}}
	defer lazy.Close()
	last := len(diffIDs) - 1
	return c.store.o.Layers.Unpack(ctx, diffIDs[last], diffIDs[:last], lazy)
}

// decompressed looks at its source only when it is first read: Unpack may not need it at all.
type decompressed struct {
	gate *gate
	tar  io.ReadCloser
}

// Read implements io.Reader.
func (d *decompressed) Read(p []byte) (int, error) {
	if d.tar == nil {
		tar, _, err := layer.Decompress(d.gate)
		if err != nil {
			return 0, fmt.Errorf("decompress: %w", err)
		}
		d.tar = tar
	}
	return d.tar.Read(p)
}

// Close ends the decompression and takes the source back.
func (d *decompressed) Close() error {
	d.gate.shut()
	if d.tar == nil {
		return nil
	}
	return d.tar.Close()
}

// gate lends a reader to a goroutine that may still be reading when nobody waits for it any more.
type gate struct {
	mu   sync.Mutex // held during a read, so that shut returns after it
	r    io.Reader
	down bool
}

// Read implements io.Reader.
func (g *gate) Read(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down {
		return 0, io.ErrClosedPipe
	}
	return g.r.Read(p)
}

// shut waits for a read under way; there is none after it.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down = true
}

// arrival reads a blob from its first byte: what an earlier attempt left, then what the source sends,
// which it also writes to the store. It opens the source when it gets there.
type arrival struct {
	ctx    context.Context
	copier *copier
	desc   oci.Descriptor
	w      content.Writer

	begun   bool
	partial io.Reader
	at      int64         // bytes in the store
	remote  io.ReadCloser // nil until the partial is read
	done    bool
	failed  error // of source or store, not of the consumer
}

// Read implements io.Reader.
func (a *arrival) Read(p []byte) (int, error) {
	a.begun = true
	if a.failed != nil {
		return 0, a.failed
	}
	if a.partial != nil {
		n, err := a.partial.Read(p)
		if err != io.EOF {
			return n, a.note(err)
		}
		a.partial = nil
		if n > 0 {
			return n, nil
		}
	}
	if a.done {
		return 0, io.EOF
	}
	if a.remote == nil {
		remote, err := a.copier.source.Fetch(a.ctx, a.desc, a.at)
		if err != nil {
			return 0, a.note(err)
		}
		a.remote = remote
	}
	return a.receive(p)
}

func (a *arrival) receive(p []byte) (int, error) {
	n, err := a.remote.Read(p)
	if n > 0 {
		if _, werr := a.w.Write(p[:n]); werr != nil {
			return 0, a.note(fmt.Errorf("store layer %s: %w", a.desc.Digest.Short(), werr))
		}
		a.at += int64(n)
		a.copier.report.bytes(a.desc.Digest.Short(), "Downloading", a.at, a.desc.Size)
	}
	if err == io.EOF {
		a.done = true
		a.copier.report.status(a.desc.Digest.Short(), "Download complete")
		a.copier.report.status(a.desc.Digest.Short(), "Extracting")
		return n, io.EOF
	}
	return n, a.note(err)
}

func (a *arrival) note(err error) error {
	if err != nil {
		a.failed = err
	}
	return err
}

// Close closes the source.
func (a *arrival) Close() error {
	if a.remote == nil {
		return nil
	}
	return a.remote.Close()
}
