package container

import (
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"davit/oci"
)

// Record is what the engine keeps of a container: in the database, or for a container that is removed
// when it ends under the run-time directory. A Record that has been published is never changed; a
// change makes a copy (see Clone) and replaces what it changes as a whole.
type Record struct {
	ID         string                               `json:"id"`
	Name       string                               `json:"name"` // without the slash
	Created    time.Time                            `json:"created"`
	Image      Image                                `json:"image"`
	Config     *container.Config                    `json:"config"` // the request's, merged with the image's
	HostConfig *container.HostConfig                `json:"hostConfig"`
	Endpoints  map[string]*network.EndpointSettings `json:"endpoints,omitempty"` // by network name, as asked for
	Mounts     []Mount                              `json:"mounts,omitempty"`
	UserNS     UserNamespace                        `json:"userNamespace"`
	Dir        string                               `json:"dir"` // its hosts, hostname, resolv.conf and log files
	LogPath    string                               `json:"logPath,omitempty"`
	State      State                                `json:"state"`

	// Asked is the request's configuration alone: what a container keeps when it gets another image. Records
	// of older engines have none.
	Asked    *container.Config `json:"asked,omitempty"`
	Succeeds *Succession       `json:"succeeds,omitempty"` // while it takes over from another container
}

// Succession is the intent that one container takes the place of another. It is recorded with the
// successor before anything happens, and gone from its record when all is done. An engine that starts
// and finds one goes back if Moved is false, and on if it is true.
type Succession struct {
	Old     string        `json:"old"`     // id of the container that gives way
	Name    string        `json:"name"`    // what is taken over
	OldName string        `json:"oldName"` // what the old one is called from then on
	Moved   bool          `json:"moved,omitempty"`
	Resume  bool          `json:"resume,omitempty"` // the old one was stopped for it, and is to run again if it fails
	Keep    bool          `json:"keep,omitempty"`   // the old one stays, stopped
	Drain   time.Duration `json:"drain,omitempty"`  // how long connections to the old one may go on
}

// Trying says whether the container has yet to show that it can take over: until then it has neither
// names nor ports of its own.
func (r *Record) Trying() bool { return r.Succeeds != nil && !r.Succeeds.Moved }

// WithSuccession returns a copy of the record whose succession is changed.
func (r *Record) WithSuccession(change func(*Succession)) *Record {
	c, s := r.Clone(), *r.Succeeds
	change(&s)
	c.Succeeds = &s
	return c
}

// Image is what the record holds of the image it was made from, so that the container outlives its names.
type Image struct {
	ID       oci.Digest     `json:"id"`
	Name     string         `json:"name"` // as the user wrote it
	Layers   []oci.DiffID   `json:"layers"`
	Manifest oci.Descriptor `json:"manifest,omitzero"`
	OS       string         `json:"os"`
}

// State is the part of a record that changes as the container lives.
type State struct {
	Status       Status        `json:"status"`
	Pid          int           `json:"pid,omitempty"`
	ExitCode     int           `json:"exitCode,omitempty"`
	Error        string        `json:"error,omitempty"`
	OOMKilled    bool          `json:"oomKilled,omitempty"`
	StartedAt    time.Time     `json:"startedAt,omitzero"`
	FinishedAt   time.Time     `json:"finishedAt,omitzero"`
	RestartCount int           `json:"restartCount,omitempty"`
	Backoff      time.Duration `json:"backoff,omitempty"` // the last wait before a restart
	Stopped      bool          `json:"stopped,omitempty"` // a user ended it: the restart policy does not apply
	Keep         bool          `json:"keep,omitempty"`    // its coming end is not its removal: a user restarts it
	Cgroup       string        `json:"cgroup,omitempty"`  // what kernel/cgroup.Load takes
	// Networks are the endpoints the running container has, by network name.
	Networks map[string]*network.EndpointSettings `json:"networks,omitempty"`
	Ports    network.PortMap                      `json:"ports,omitempty"` // where its ports are published
	Health   *container.Health                    `json:"health,omitempty"`
}

// Mount is one mount of a container, resolved: its source is a directory of a volume, a path of the
// host, a path inside an image, or (tmpfs) nothing.
type Mount struct {
	Type        mount.Type        `json:"type"`
	Name        string            `json:"name,omitempty"` // of the volume
	Source      string            `json:"source,omitempty"`
	Destination string            `json:"destination"`
	Driver      string            `json:"driver,omitempty"`
	Mode        string            `json:"mode,omitempty"` // the options as written, for inspect
	RW          bool              `json:"rw,omitempty"`
	Propagation mount.Propagation `json:"propagation,omitempty"`
	Options     []string          `json:"options,omitempty"` // of a tmpfs

	NonRecursive bool   `json:"nonRecursive,omitempty"` // bind only the mount itself
	ReadOnlyTop  bool   `json:"readOnlyTop,omitempty"`  // read-only without the mounts beneath it
	NoCopy       bool   `json:"noCopy,omitempty"`       // leave a new volume empty
	Anonymous    bool   `json:"anonymous,omitempty"`    // its volume goes with the container (rm -v, --rm)
	Subpath      string `json:"subpath,omitempty"`      // the part of the volume or image that is mounted
	CreateSource bool   `json:"createSource,omitempty"` // make a missing directory of the host
	FromImage    bool   `json:"fromImage,omitempty"`    // asked for by the image's VOLUME

	VolumeLabels  map[string]string `json:"volumeLabels,omitempty"`
	VolumeOptions map[string]string `json:"volumeOptions,omitempty"`
}

// UserNamespace says in which user namespace a container's processes live. A host id is Base plus the
// id inside; with Mode Host it is the id itself.
type UserNamespace struct {
	Mode   UserMode `json:"mode"`
	Base   uint32   `json:"base,omitempty"`
	Size   uint32   `json:"size,omitempty"`
	Reason string   `json:"reason,omitempty"` // why it is not a namespace of its own
	// Joined is the container whose namespace it is, for Mode Shared.
	Joined string `json:"joined,omitempty"`
}

// UserMode is one of the ways a container stands to user namespaces.
type UserMode string

// The user modes.
const (
	UserPrivate UserMode = "private" // its own, with its own range of ids
	UserHost    UserMode = "host"    // the host's
	UserShared  UserMode = "shared"  // that of another container with which it shares namespaces
)

// HostID returns the id on the host of an id in the container.
func (u UserNamespace) HostID(id uint32) uint32 { return u.Base + id }

// Clone returns a copy of the record that may be changed at its top level and in State.
func (r *Record) Clone() *Record {
	c := *r
	return &c
}

// AutoRemove says whether the container goes when its program ends.
func (r *Record) AutoRemove() bool { return r.HostConfig != nil && r.HostConfig.AutoRemove }

// GoesNow says whether the container, whose program has ended, is removed for that.
func (r *Record) GoesNow() bool { return r.AutoRemove() && !r.State.Keep }

// Apply returns a copy of the record after an event, with what change makes of its state.
func (r *Record) Apply(e Event, change func(*State)) (*Record, error) {
	next, err := r.State.Status.Next(e)
	if err != nil {
		return nil, err
	}
	c := r.Clone()
	c.State.Status = next
	if change != nil {
		change(&c.State)
	}
	return c, nil
}
