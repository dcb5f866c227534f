package server

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	imagewire "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"davit/engine"
	"davit/oci/errdefs"
)

// infoAnswer adds fields that left the wire types while clients up to 1.51 still read them.
type infoAnswer struct {
	system.Info
	BridgeNfIptables  bool
	BridgeNfIP6tables bool `json:"BridgeNfIp6tables"`
	ClusterStore      string
	ClusterAdvertise  string
}

func (s *Server) info(w http.ResponseWriter, r *request) error {
	i, err := s.Engine.System.Info(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, infoAnswer{Info: i})
}

// eventAnswer is an event with the fields of clients older than 1.22, which many scripts still read.
type eventAnswer struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

func (s *Server) events(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	now := s.Engine.Now()
	since, err := engine.ParseTime(r.query("since"), now)
	if err != nil {
		return err
	}
	until, err := engine.ParseTime(r.query("until"), now)
	if err != nil {
		return err
	}
	if !since.IsZero() && !until.IsZero() && until.Before(since) {
		return errdefs.Invalid("`since` time (%s) cannot be after `until` time (%s)", r.query("since"), r.query("until"))
	}
	stream := s.Engine.Events.Subscribe(r.Context(), since, until, func(m events.Message) bool { return wants(f, m) })
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush(w)
	out := json.NewEncoder(w)
	for m := range stream {
		a := eventAnswer{Message: m}
		if m.Type == events.ContainerEventType || m.Type == events.ImageEventType {
			a.Status, a.ID, a.From = string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]
		}
		if err := out.Encode(a); err != nil {
			return nil
		}
		flush(w)
	}
	return nil
}

// wants says whether an event passes the filters of a client.
func wants(f engine.Filters, m events.Message) bool {
	action, _, _ := cutAction(string(m.Action))
	return f.Exact("type", string(m.Type)) && f.Exact("event", string(m.Action), action) && f.Exact("scope", m.Scope) &&
		f.Labels(m.Actor.Attributes) && f.Exact("daemon", "") && about(f, "container", events.ContainerEventType, m) &&
		about(f, "image", events.ImageEventType, m) && about(f, "volume", events.VolumeEventType, m) &&
		about(f, "network", events.NetworkEventType, m)
}

// cutAction takes the detail off an action: "exec_create: ls" and "health_status: healthy".
func cutAction(action string) (name, detail string, ok bool) {
	for i := range len(action) {
		if action[i] == ':' {
			return action[:i], action[i+1:], true
		}
	}
	return action, "", false
}

// about says whether an event concerns one of the things named by a filter.
func about(f engine.Filters, field string, kind events.Type, m events.Message) bool {
	wanted := f[field]
	if len(wanted) == 0 {
		return true
	}
	attributes := m.Actor.Attributes
	var names []string
	switch {
	case m.Type == kind:
		names = []string{m.Actor.ID, attributes["name"]}
	case kind == events.ImageEventType:
		names = []string{attributes["image"]}
	case kind == events.ContainerEventType && m.Type == events.NetworkEventType:
		names = []string{attributes["container"]}
	default:
		return false
	}
	return slices.ContainsFunc(wanted, func(v string) bool {
		return slices.Contains(names, v) || (len(v) >= 3 && len(names[0]) >= len(v) && names[0][:len(v)] == v)
	})
}

// usageAnswer is the form of disk usage before 1.52, with what only davit tells.
type usageAnswer struct {
	LayersSize  int64
	Images      []imagewire.Summary
	Containers  []container.Summary
	Volumes     []volume.Volume
	BuildCache  []build.CacheRecord
	BuilderSize int64
	DataRoot    *engine.RootUsage `json:",omitempty"`
}

func (s *Server) diskUsage(w http.ResponseWriter, r *request) error {
	kinds := r.form["type"]
	for _, k := range kinds {
		if !slices.Contains([]string{"container", "image", "volume", "build-cache"}, k) {
			return errdefs.Invalid("unknown object type: %s", k)
		}
	}
	asked := func(kind string) bool { return len(kinds) == 0 || slices.Contains(kinds, kind) }
	u, err := s.Engine.System.DiskUsage(r.Context(), engine.UsageKinds{
		Images: asked("image"), Containers: asked("container"), Volumes: asked("volume"), BuildCache: asked("build-cache"),
	})
	if err != nil {
		return err
	}
	a := usageAnswer{LayersSize: u.LayersSize, Images: u.Images, Containers: u.Containers, Volumes: u.Volumes, BuildCache: u.BuildCache, DataRoot: u.Root}
	for _, c := range u.BuildCache {
		if !c.Shared {
			a.BuilderSize += c.Size
		}
	}
	return writeJSON(w, http.StatusOK, a)
}
