// Package build makes images from Dockerfiles.
//
//	context  the files that the user sent           -> tree.Tree
//	plan     Dockerfile and arguments               -> stages and steps (pure)
//	solve    which vertices run when                (pure)
//	op       one step over the layers so far        -> a layer
//	cache    what a step with the same key made
//	export   base image, steps and layers           -> image configuration (pure)
//
// Builder puts them together. It reaches images, layers and containers through the interfaces Images,
// Layers and Runner only.
package build

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"time"

	"davit/build/cache"
	"davit/build/op"
	"davit/build/tree"
	"davit/oci"
)

// Names of package op that users of a Builder need.
type (
	Layers  = op.Layers
	Runner  = op.Runner
	RunSpec = op.RunSpec
	Mount   = op.Mount
	Limits  = op.Limits
	Ulimit  = op.Ulimit
)

// The kinds of a Mount.
const (
	MountBind  = op.MountBind
	MountTmpfs = op.MountTmpfs
)

// Images finds base images and keeps built ones.
type Images interface {
	// Base returns the image of a FROM or --from, from the registry if it is not here.
	Base(ctx context.Context, r BaseRequest) (Base, error)
	// Has says whether an image with the configuration of this digest is here.
	Has(ctx context.Context, id oci.Digest) bool
	// Put keeps an image and returns its ID, the digest of its configuration.
	Put(ctx context.Context, config oci.Image) (oci.Digest, error)
	// Tag gives an image a name; one that it has already costs no write.
	Tag(ctx context.Context, id oci.Digest, name string) error
}

// BaseRequest asks for a base image.
type BaseRequest struct {
	Name     string       // as in the Dockerfile: a reference, or an ID
	Platform oci.Platform // the wanted one
	Pull     bool         // ask the registry even if the image is here
	Auth     any          // Request.Auth

	// Progress takes the messages of a pull, one JSON object each, as POST /images/create sends them.
	Progress func(json.RawMessage)
}

// Base is a base image whose layers are unpacked here.
type Base struct {
	ID     oci.Digest
	Config oci.Image // Config.RootFS.DiffIDs name the layers
}

// Secrets gives the secrets of RUN --mount=type=secret. An unknown one is errdefs.ErrNotFound.
type Secrets interface {
	Secret(ctx context.Context, id string) ([]byte, error)
}

// Request is one build. The zero value of every field but Context means its default.
type Request struct {
	Context        tree.Tree         // the files of COPY and ADD; see OpenContext
	Dockerfile     string            // its path in the context; "Dockerfile"
	DockerfileData []byte            // its content when it comes from elsewhere (docker build -f -)
	Tags           []string          // names for the result
	Target         string            // name or number of a stage; the last
	Args           map[string]string // build arguments
	Labels         map[string]string // added to the result's
	Platform       oci.Platform      // of the result; the host's
	NoCache        bool              // run every step, but keep what it makes for the next build
	Pull           bool              // look for newer base images
	CacheFrom      []string          // accepted; the cache is by content, and has the images built here
	Network        string            // of RUN steps, as RunSpec.Network
	ExtraHosts     []string          // of RUN steps, name:address
	Limits         Limits            // of RUN steps
	Entitlements   []string          // what RUN steps may ask for: EntitlementInsecure, EntitlementNetworkHost
	Secrets        Secrets           // nil: there are none
	Auth           any               // handed to Images.Base untouched
}

// What a Dockerfile may do only if the one who builds it says so (docker build --allow): somebody
// else's Dockerfile must not get hold of the host by itself.
const (
	EntitlementInsecure    = "security.insecure" // RUN --security=insecure
	EntitlementNetworkHost = "network.host"      // RUN --network=host
)

// Result is a finished build.
type Result struct {
	ID    oci.Digest // of the image
	Image oci.Image
	Tags  []string // Request.Tags, in their familiar form
}

// Options are what a Builder works with.
type Options struct {
	Root       string // a directory of its own, durable: contexts, cache mounts
	RunRoot    string // a directory of its own, in memory: secrets
	Images     Images
	Layers     Layers
	Runner     Runner
	Cache      *cache.Cache
	HTTP       *http.Client                           // of ADD and remote contexts; nil: one with defaults
	Decompress func(io.Reader) (io.ReadCloser, error) // any compression, recognised by its first bytes
	Log        *slog.Logger
	Now        func() time.Time
	Parallel   int // steps at a time; 0: twice the CPUs
}
