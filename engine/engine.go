package engine

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/build/cache"
	"davit/engine/container"
	"davit/engine/events"
	"davit/image"
	"davit/network"
	"davit/oci/ref"
	"davit/oci/rootfs"
	"davit/registry/auth"
	"davit/store/content"
	"davit/store/layer"
	"davit/store/metadata"
	"davit/store/snapshot"
	"davit/store/volume"
	"davit/task"
)

// Repository is one repository of a registry, to pull from and push to.
type Repository interface {
	image.Source
	image.Sink
	io.Closer
}

// Registries reaches registries.
type Registries interface {
	Repository(r ref.Ref, creds auth.Credentials) (Repository, error)
	Tags(ctx context.Context, r ref.Ref, creds auth.Credentials) ([]string, error)
	// Login checks credentials; it returns an identity token where the registry gives one.
	Login(ctx context.Context, creds auth.Credentials) (string, error)
}

// Host is what the engine has the kernel do beyond its stores and the monitor.
type Host interface {
	// MountRoot mounts a root, detached from every mount namespace, and returns its directory. It is
	// unmounted when the file is closed. Files have the owners that they have on disk.
	MountRoot(ctx context.Context, root rootfs.Rootfs, readOnly bool) (*os.File, error)
	// Seccomp compiles a profile in Docker's JSON form (empty: the default one) for a container with
	// the given capabilities.
	Seccomp(profile string, capabilities []string) (*specs.LinuxSeccomp, error)
	// AsOwner runs a function on a thread of its own that makes files as the given id of the host, with
	// all of the engine's power over files. The function must not wait for other goroutines' files.
	AsOwner(id uint32, f func() error) error
}

// Options are what an engine is made of. All fields are needed unless it is said otherwise.
type Options struct {
	Root string // durable
	Run  string // gone at reboot

	DB         *metadata.DB
	Content    *content.Store
	Layers     *layer.Store
	Snapshots  *snapshot.Store
	Volumes    *volume.Store
	Images     *image.Store
	Cache      *cache.Cache // of builds
	Networks   *network.Controller
	Registries Registries
	Host       Host
	Monitor    task.LaunchOptions

	Facts    container.HostFacts
	Defaults container.Defaults
	UserMode container.UserMode // UserHost: no container gets a user namespace
	DNS      DNS
	Labels   []string            // of the engine, for info
	Insecure []string            // registries, for info
	Mirrors  map[string][]string // base URLs by registry, "*" for all; for info
	Log      *slog.Logger
	Now      func() time.Time
}

// DNS is what containers' resolv.conf has where they do not say otherwise.
type DNS struct {
	Servers []netip.Addr
	Search  []string
	Options []string
}

// Engine is the services, which share their parts. Close ends it; containers go on.
type Engine struct {
	Containers *Containers
	Views      *Views
	Streams    *Streams
	Execs      *Execs
	Archives   *Archives
	Images     *Images
	Networks   *Networks
	Volumes    *Volumes
	Builds     *Builds
	System     *System
	Events     *events.Bus

	*shared
	stop context.CancelFunc
}

// shared is what the services work with.
type shared struct {
	Options
	roster  *roster
	journal *journal
	link    *link
	bus     *events.Bus
	ids     *idRanges
}

// New loads what there is and begins to follow the monitor. Containers whose restart policy says so are
// started in the background.
func New(ctx context.Context, o Options) (*Engine, error) {
	j, err := openJournal(o.DB, o.Run, o.Log)
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	s := &shared{
		Options: o, roster: newRoster(), journal: j, link: newLink(o.Monitor),
		bus: events.New(o.Now), ids: newIDRanges(o.Root),
	}
	life := &lifecycle{shared: s}
	life.context, life.cancel = context.WithCancel(context.WithoutCancel(ctx))
	e, err := assemble(s, life)
	if err != nil {
		j.close()
		return nil, fmt.Errorf("start engine: %w", err)
	}
	if err := life.load(); err != nil {
		j.close()
		return nil, fmt.Errorf("start engine: %w", err)
	}
	if err := life.reconcile(ctx); err != nil {
		j.close()
		return nil, fmt.Errorf("start engine: %w", err)
	}
	return e, nil
}

func assemble(s *shared, life *lifecycle) (*Engine, error) {
	e := &Engine{shared: s, Events: s.bus, stop: life.cancel}
	e.Containers = &Containers{shared: s, life: life}
	e.Views = &Views{s}
	e.Streams = &Streams{s}
	e.Execs = &Execs{shared: s, byID: map[string]*execution{}}
	e.Archives = &Archives{s}
	e.Images = &Images{s}
	e.Networks = &Networks{s}
	e.Volumes = &Volumes{s}
	e.System = newSystem(s)
	life.execs, life.steps = e.Execs, newSteps(s)
	var err error
	e.Builds, err = newBuilds(s, life.steps)
	e.System.builds = e.Builds
	return e, err
}

// Close stops the engine's own work. Containers, their output and their ports go on.
func (e *Engine) Close() {
	e.stop()
	e.link.close()
	for _, a := range e.roster.all() {
		a.stopTimers()
	}
	e.journal.close()
}
