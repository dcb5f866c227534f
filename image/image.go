// Package image keeps images: what names them, what they consist of, and how they come and go.
//
// An image is a configuration object, whose digest is the image's ID, and a stack of layers. Names
// point to images; several may point to one. The records are in store/metadata, the bytes of
// manifests, configurations and compressed layers in store/content, the unpacked layers in
// store/layer:
//
//	images/<ID>           record: manifest, layers, parent, times
//	names/<reference>     record: image ID, the descriptor that the registry gave for the name
//	taglog/<reference>    record: where a tag has led to over time
//	distribution/<DiffID> record: compressed forms of a layer, and the repositories that have them
//
// The package never sees a registry: Pull reads from a Source and Push writes to a Sink, small
// interfaces which registry/client implements.
package image

import (
	"context"
	"io"
	"time"

	"davit/oci"
	"davit/oci/ref"
)

// Image is one image as it is now; a value, which later changes to the store do not touch.
type Image struct {
	ID       oci.Digest     // digest of the configuration
	Config   oci.Image      // the configuration itself
	Manifest oci.Descriptor // the manifest; its layers are tars as they are or compressed, see Store.Manifest
	Layers   []oci.DiffID   // lowest first
	Size     int64          // bytes of all unpacked layers
	Parent   oci.Digest     // the image it was built upon, if this store knows it; else empty
	Updated  time.Time      // when a name was last put on it, or it was put here

	RepoTags    []string // familiar form, "ubuntu:latest"; sorted
	RepoDigests []string // familiar form, "ubuntu@sha256:..."; sorted
}

// Dangling says whether no tag names the image.
func (i Image) Dangling() bool { return len(i.RepoTags) == 0 }

// Created returns the time in the configuration, or the zero time.
func (i Image) Created() time.Time {
	if i.Config.Created == nil {
		return time.Time{}
	}
	return *i.Config.Created
}

// Source is a repository to pull from. Its bytes are not trusted: Pull verifies them.
type Source interface {
	// Resolve returns the descriptor of the manifest or index behind a tag or digest.
	Resolve(ctx context.Context, tagOrDigest string) (oci.Descriptor, error)
	// Fetch opens content from an offset on; desc.MediaType says whether it is a manifest or a blob.
	// Broken connections are mended inside the returned reader.
	Fetch(ctx context.Context, desc oci.Descriptor, offset int64) (io.ReadCloser, error)
}

// Sink is a repository to push to.
type Sink interface {
	// Has says whether the repository holds a blob or (by desc.MediaType) a manifest.
	Has(ctx context.Context, desc oci.Descriptor) (bool, error)
	// Mount makes a blob of another repository of the same registry appear in this one; false, when
	// the registry will not do that.
	Mount(ctx context.Context, desc oci.Descriptor, from ref.Ref) (bool, error)
	// Upload sends a blob and returns its digest and size. desc.Digest may be empty: the bytes are
	// then made on the way. open may be called more than once, each time for the whole content.
	Upload(ctx context.Context, desc oci.Descriptor, open func() (io.ReadCloser, error)) (oci.Descriptor, error)
	// PutManifest stores a manifest or index under a tag, or under its digest when tag is empty.
	PutManifest(ctx context.Context, tag string, desc oci.Descriptor, content []byte) error
}

// Progress is one report of a pull, push, load or import, in Docker's words.
type Progress struct {
	ID      string // a layer's short digest, or a tag; empty when it concerns the whole
	Status  string // "Downloading", "Pull complete", ...
	Current int64  // bytes done; 0 when the status has none
	Total   int64  // bytes in all; 0 when not known
}

// Users tells which containers use images; the engine implements it.
type Users interface {
	// ImageUsers returns the containers of each image, by image ID.
	ImageUsers() map[oci.Digest][]User
}

// User is a container that uses an image.
type User struct {
	Container string // full container ID
	Running   bool
}

// PullOptions says how to pull.
type PullOptions struct {
	Source   Source
	Platform *oci.Platform  // nil: the store's own
	Progress func(Progress) // may be nil; called by one goroutine at a time
}

// Pulled is the result of a pull.
type Pulled struct {
	Image  Image
	Target oci.Descriptor // the manifest or index that the name led to
	Newer  bool           // false: the image was up to date
}

// PushOptions says how to push.
type PushOptions struct {
	Sink     Sink
	Platform *oci.Platform
	Progress func(Progress)
}

// Pushed is the result of a push: what Docker reports as {"Tag":..,"Digest":..,"Size":..}.
type Pushed struct {
	Tag    string
	Digest oci.Digest
	Size   int64 // of the manifest
}

// ListOptions selects images; empty fields select all.
type ListOptions struct {
	All       bool              // also the intermediate images of a build
	Dangling  *bool             // only (or never) images without a tag
	Reference []string          // any of these name patterns, as in path.Match: "busy*", "*/*:latest"
	Labels    map[string]string // all of these; an empty value asks for presence
	NotLabels map[string]string // none of these
	Before    string            // created before this image
	Since     string            // created after this image
	Until     time.Time         // created before this time
}

// RemoveOptions says how to remove a name or an image.
type RemoveOptions struct {
	Force   bool
	NoPrune bool // keep untagged parents
	// Platform is accepted when it is the image's own.
	Platform *oci.Platform
}

// Deleted is one line of what a removal did; one field is set.
type Deleted struct {
	Untagged string     // a familiar name
	Deleted  oci.Digest // an image, or the chain of one of its layers
	Layer    bool       // it is a layer's
}

// HistoryEntry is one step of an image's history, newest first. ID is the image's where this store
// knows it, else "<missing>".
type HistoryEntry struct {
	ID        string
	Created   time.Time
	CreatedBy string
	Tags      []string
	Size      int64 // bytes of the step's unpacked layer
	Comment   string
}

// PutOptions describes an image whose layers are in store/layer: what commit and build make.
type PutOptions struct {
	Config oci.Image // RootFS.DiffIDs names the layers
	Parent oci.Digest
	Names  []ref.Ref
	By     Cause // what makes it, for the names' logs
}

// LoadOptions says how to load an archive.
type LoadOptions struct {
	Platform *oci.Platform
	Progress func(Progress)
}

// Loaded is one image of an archive.
type Loaded struct {
	ID   oci.Digest
	Name string // familiar; empty for an image without name
}

// ImportOptions describes the image made of a single file system archive.
type ImportOptions struct {
	Names    []ref.Ref
	Changes  []string // Dockerfile instructions: CMD, ENV, ...
	Message  string
	Platform *oci.Platform
	Progress func(Progress)
}

// PruneOptions selects what to prune.
type PruneOptions struct {
	All       bool // every image that no container uses; else only dangling ones
	Until     time.Time
	Labels    map[string]string
	NotLabels map[string]string
}

// Pruned is what pruning did.
type Pruned struct {
	Deleted   []Deleted
	Reclaimed int64 // bytes
}

// Usage is an image's share of the disk, in bytes as du counts them.
type Usage struct {
	Image  Image
	Shared int64 // in layers that other images use as well
	Unique int64
}
