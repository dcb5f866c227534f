package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	wirenet "github.com/moby/moby/api/types/network"

	"davit/engine/container"
	"davit/image"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/store/snapshot"
)

// Containers changes containers. Errors have Docker's words.
type Containers struct {
	*shared
	life *lifecycle
}

// CreateRequest asks for a container.
type CreateRequest struct {
	ID         string // empty: a new one
	Name       string // empty: one is made up
	Platform   *oci.Platform
	Config     *wire.Config
	HostConfig *wire.HostConfig
	Networking *wirenet.NetworkingConfig
}

// Create makes a container that does not run yet.
func (c *Containers) Create(ctx context.Context, q CreateRequest) (wire.CreateResponse, error) {
	r, err := c.create(ctx, q, func(*container.Record) {})
	if err != nil {
		return wire.CreateResponse{}, err
	}
	return wire.CreateResponse{ID: r.ID, Warnings: c.warnings(r)}, nil
}

// create is Create with a last word about the record, before anything is made.
func (c *Containers) create(ctx context.Context, q CreateRequest, adapt func(*container.Record)) (_ *container.Record, err error) {
	var u undo
	defer func() { u.unless(err == nil) }()
	if q.Config == nil {
		return nil, errdefs.Invalid("config cannot be empty in order to create a container")
	}
	r := &container.Record{ID: q.ID, Created: c.Now().UTC(), State: container.State{Status: container.Created}}
	if r.ID == "" {
		r.ID = newID()
	}
	img, err := c.resolveImage(ctx, q)
	if err != nil {
		return nil, err
	}
	q.Config = namedForGood(q.Config, img)
	if r.Name, err = c.takeName(q.Name, r.ID); err != nil {
		return nil, err
	}
	u.add(func() { c.roster.release(r.Name, r.ID) })
	if err := c.describe(r, q, img); err != nil {
		return nil, err
	}
	adapt(r)
	if err := c.furnish(ctx, r, &u); err != nil {
		return nil, err
	}
	if err := c.journal.save(r); err != nil {
		return nil, err
	}
	c.roster.add(newActor(r))
	c.tell(r, events.ActionCreate, nil)
	return r, nil
}

func (c *Containers) resolveImage(ctx context.Context, q CreateRequest) (image.Image, error) {
	img, err := c.Options.Images.Resolve(ctx, q.Config.Image, q.Platform)
	if errors.Is(err, errdefs.ErrNotFound) {
		return image.Image{}, noSuchImage(q.Config.Image)
	}
	if err != nil {
		return image.Image{}, err
	}
	return img, c.Options.Images.Ensure(ctx, img)
}

// namedForGood returns the configuration with a name of the image that does not come to mean another one
// as its tag moves on.
func namedForGood(config *wire.Config, img image.Image) *wire.Config {
	if _, _, past := image.CutMove(config.Image); !past {
		return config
	}
	c := *config
	c.Image = string(img.ID)
	return &c
}

// noSuchImage is what clients wait for to pull an image.
func noSuchImage(name string) error {
	if r, err := ref.Parse(name); err == nil {
		name = r.WithDefaultTag().Familiar()
	}
	return errdefs.NotFound("No such image: %s", name)
}

func newID() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

var validName = regexp.MustCompile(`^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// takeName reserves the name that was asked for, or makes one up.
func (c *Containers) takeName(name, id string) (string, error) {
	if name == "" {
		for {
			name = madeUpName()
			if c.roster.reserve(name, id) == nil {
				return name, nil
			}
		}
	}
	if !validName.MatchString(name) {
		return "", errdefs.Invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	name = strings.TrimPrefix(name, "/")
	return name, c.roster.reserve(name, id)
}

// describe fills in the record from request and image; it has no side effect but to look at other
// containers.
func (c *Containers) describe(r *container.Record, q CreateRequest, img image.Image) error {
	config, err := container.Merge(q.Config, img.Config.Config)
	if err != nil {
		return err
	}
	if r.Config, r.HostConfig, err = container.Complete(r.ID, config, q.HostConfig, c.Defaults); err != nil {
		return err
	}
	if len(r.Config.Entrypoint)+len(r.Config.Cmd) == 0 {
		return errdefs.Invalid("no command specified")
	}
	if err := container.CheckCPUs(&r.HostConfig.Resources, c.Facts); err != nil {
		return err
	}
	r.Asked = q.Config
	r.Image = container.Image{ID: img.ID, Name: q.Config.Image, Layers: img.Layers, Manifest: img.Manifest, OS: img.Config.OS}
	if err := c.endpoints(r, q.Networking); err != nil {
		return err
	}
	if r.Mounts, err = container.ParseMounts(r.Config, r.HostConfig, c.mountsOf); err != nil {
		return err
	}
	peers, err := c.peers(r.HostConfig)
	if err != nil {
		return err
	}
	r.UserNS = container.Isolate(r.HostConfig, peers, c.UserMode).Fit(r.Config.User, r.HostConfig.GroupAdd, idSize)
	r.Dir = filepath.Join(c.Options.Run, "containers", r.ID)
	if logs := r.HostConfig.LogConfig.Type; logs == "json-file" || logs == "local" {
		r.LogPath = filepath.Join(c.logDir(r.ID), r.ID+"-json.log")
	}
	return c.check(r)
}

// check refuses early what could only fail at start.
func (c *Containers) check(r *container.Record) error {
	if _, err := container.ParseSecurity(r.HostConfig.SecurityOpt); err != nil {
		return err
	}
	if err := checkLogs(r.HostConfig.LogConfig); err != nil {
		return err
	}
	if err := c.checkLinks(r); err != nil {
		return err
	}
	if rt := r.HostConfig.Runtime; rt != "davit" && rt != "runc" && rt != "io.containerd.runc.v2" {
		return errdefs.Invalid("unknown or invalid runtime name: %s", rt)
	}
	_, err := container.Capabilities(c.Facts.Capabilities, r.HostConfig.CapAdd, r.HostConfig.CapDrop, r.HostConfig.Privileged)
	return err
}

// endpoints records in which networks the container is to be: that of its mode first.
func (c *Containers) endpoints(r *container.Record, networking *wirenet.NetworkingConfig) error {
	r.Endpoints = map[string]*wirenet.EndpointSettings{}
	mode := r.HostConfig.NetworkMode
	if networking != nil {
		for name, settings := range networking.EndpointsConfig {
			if name == "default" {
				name = wirenet.NetworkBridge
			}
			if settings == nil {
				settings = &wirenet.EndpointSettings{}
			}
			r.Endpoints[name] = settings.Copy()
		}
	}
	if mode.IsContainer() {
		if len(r.Endpoints) > 0 {
			return errdefs.Invalid("conflicting options: a container that shares the network of another cannot be connected to networks")
		}
		return nil
	}
	if _, ok := r.Endpoints[string(mode)]; !ok {
		r.Endpoints[string(mode)] = &wirenet.EndpointSettings{}
	}
	for name := range r.Endpoints {
		if mode.IsHost() && name != string(mode) {
			return errdefs.Invalid("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		if err := c.checkEndpoint(name, r.Endpoints[name]); err != nil {
			return err
		}
	}
	return nil
}

// checkEndpoint refuses addresses where a network has no place for them. A network that does not exist
// may until the container starts.
func (s *shared) checkEndpoint(name string, e *wirenet.EndpointSettings) error {
	n, err := s.Options.Networks.Get(name)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if c := e.IPAMConfig; n.Predefined() && c != nil && (c.IPv4Address.IsValid() || c.IPv6Address.IsValid()) {
		return errdefs.Invalid("user specified IP address is supported on user defined networks only")
	}
	return nil
}

// findOther finds another container that a request names. That it does not exist is a mistake in the
// request: clients take an answer that something was not found for a missing image, and pull that.
func (c *Containers) findOther(name string) (*actor, error) {
	a, err := c.roster.find(name)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, errdefs.Invalid("%v", err)
	}
	return a, err
}

// mountsOf is where --volumes-from looks.
func (c *Containers) mountsOf(name string) ([]container.Mount, error) {
	a, err := c.findOther(name)
	if err != nil {
		return nil, err
	}
	return a.record().Mounts, nil
}

// peers are the containers whose namespaces a request joins.
func (c *Containers) peers(h *wire.HostConfig) ([]container.Peer, error) {
	var peers []container.Peer
	for _, mode := range []string{string(h.NetworkMode), string(h.PidMode), string(h.IpcMode)} {
		name, ok := strings.CutPrefix(mode, "container:")
		if !ok {
			continue
		}
		a, err := c.findOther(name)
		if err != nil {
			return nil, err
		}
		peers = append(peers, container.Peer{ID: a.id, UserNS: a.record().UserNS})
	}
	return peers, nil
}

// furnish makes what the container has on disk: its ids, writable layer, directory and volumes.
func (c *Containers) furnish(ctx context.Context, r *container.Record, u *undo) error {
	if r.UserNS.Mode == container.UserPrivate {
		base, err := c.ids.allocate()
		if err != nil {
			return err
		}
		r.UserNS.Base, r.UserNS.Size = base, idSize
		u.add(func() { c.ids.release(base) })
	}
	_, err := c.Snapshots.Prepare(ctx, r.ID, r.Image.Layers, snapshot.Options{Volatile: r.AutoRemove()})
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	u.add(func() { c.removeSnapshot(r.ID) })
	if err := c.markRoot(r.ID); err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	return c.volumesFor(ctx, r, u)
}

// markRoot makes the empty file by which programs tell that they are in a container.
func (s *shared) markRoot(id string) error {
	upper, err := s.Snapshots.Upper(id)
	if err != nil {
		return err
	}
	return syscall.Mknod(filepath.Join(upper, dockerenv), syscall.S_IFREG|0o755, 0)
}

// logDir is where a container's log will be, from its first output on.
func (s *shared) logDir(id string) string { return filepath.Join(s.Root, "containers", id) }

func (s *shared) removeSnapshot(id string) {
	if err := s.Snapshots.Remove(context.Background(), id); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		s.Log.Error("remove snapshot", "container", id, "error", err)
	}
}

// warnings are what a client prints after create.
func (c *Containers) warnings(r *container.Record) []string {
	w := []string{}
	if r.HostConfig.NetworkMode.IsHost() && len(r.HostConfig.PortBindings) > 0 {
		w = append(w, "Published ports are discarded when using host network mode")
	}
	return w
}

// tell publishes an event of a container with Docker's attributes: image, name, labels, and more.
func (s *shared) tell(r *container.Record, action events.Action, more map[string]string) {
	attributes := maps.Clone(r.Config.Labels)
	if attributes == nil {
		attributes = map[string]string{}
	}
	attributes["image"], attributes["name"] = r.Image.Name, r.Name
	maps.Copy(attributes, more)
	s.bus.Publish(events.ContainerEventType, action, r.ID, attributes)
}
