package engine

import (
	"context"
	"time"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"davit/engine/container"
	"davit/oci"
)

// Inspection is Docker's description of a container, with what only davit has to say.
type Inspection struct {
	wire.InspectResponse
	Davit Particulars
}

// Particulars are what davit says of a container beyond Docker.
type Particulars struct {
	UserNamespace container.UserNamespace
}

// Inspect describes a container; with size, it counts bytes.
func (v *Views) Inspect(ctx context.Context, name string, size bool) (Inspection, error) {
	a, err := v.roster.find(name)
	if err != nil {
		return Inspection{}, err
	}
	r := a.record()
	i := v.inspect(a, r)
	if size {
		written, total, err := v.sizes(ctx, r)
		if err != nil {
			return Inspection{}, err
		}
		i.SizeRw, i.SizeRootFs = &written, &total
	}
	return Inspection{InspectResponse: i, Davit: Particulars{UserNamespace: r.UserNS}}, nil
}

func (v *Views) inspect(a *actor, r *container.Record) wire.InspectResponse {
	files := filesIn(r.Dir)
	args := append(append([]string{}, r.Config.Entrypoint...), r.Config.Cmd...)
	i := wire.InspectResponse{
		ID: r.ID, Created: r.Created.Format(time.RFC3339Nano), Path: args[0], Args: append([]string{}, args[1:]...),
		State: wireState(r), Image: string(r.Image.ID), Name: "/" + r.Name, RestartCount: r.State.RestartCount,
		ResolvConfPath: files.Resolv, HostnamePath: files.Hostname, HostsPath: files.Hosts, LogPath: r.LogPath,
		Driver: "overlay2", Platform: r.Image.OS, ExecIDs: a.running(), HostConfig: hostConfigShown(r), Config: r.Config,
		Mounts: mountPoints(r), GraphDriver: v.graph(r), ImageManifestDescriptor: wireDescriptor(r.Image.Manifest),
		NetworkSettings: &wire.NetworkSettings{Networks: networksOf(r), Ports: r.State.Ports},
	}
	if r.HostConfig.LogConfig.Type == "local" {
		i.LogPath = "" // as with Docker, whose file has no form that others read
	}
	if r.State.Status.Alive() {
		i.NetworkSettings.SandboxID, i.NetworkSettings.SandboxKey = r.ID, procNS(r.State.Pid)
	}
	if i.NetworkSettings.Ports == nil {
		i.NetworkSettings.Ports = wirenet.PortMap{}
	}
	return i
}

// hostConfigShown is what was asked for, with links in the form in which Docker shows them.
func hostConfigShown(r *container.Record) *wire.HostConfig {
	if len(r.HostConfig.Links) == 0 {
		return r.HostConfig
	}
	h := *r.HostConfig
	h.Links = linksShown(r)
	return &h
}

func wireState(r *container.Record) *wire.State {
	s := r.State
	again := s.Status == container.Restarting || s.Status == container.Starting && s.RestartCount > 0
	if again { // from its exit until it runs again nobody may take it for stopped
		s.Status = container.Restarting
	}
	w := &wire.State{
		Status: wire.ContainerState(s.Status.Shown()), Running: s.Status.Alive() || again,
		Paused: s.Status == container.Paused, Restarting: again, Dead: s.Status == container.Dead,
		OOMKilled: s.OOMKilled, Pid: s.Pid, ExitCode: s.ExitCode, Error: s.Error,
		StartedAt: wireTime(s.StartedAt), FinishedAt: wireTime(s.FinishedAt), Health: s.Health,
	}
	return w
}

// wireTime is a time as Docker prints it, also the zero one.
func wireTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func wireDescriptor(d oci.Descriptor) *ocispec.Descriptor {
	if d.Digest == "" {
		return nil
	}
	w := &ocispec.Descriptor{MediaType: d.MediaType, Digest: godigest.Digest(d.Digest), Size: d.Size, Annotations: d.Annotations}
	if p := d.Platform; p != nil {
		w.Platform = &ocispec.Platform{Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, Variant: p.Variant}
	}
	return w
}

// graph names the directories of a container's root, as Docker's overlay2 driver does.
func (s *shared) graph(r *container.Record) *storage.DriverData {
	d := &storage.DriverData{Name: "overlay2", Data: map[string]string{}}
	root, err := s.Snapshots.Rootfs(r.ID)
	if err != nil {
		return d
	}
	lower := ""
	for i := len(root.Lower) - 1; i >= 0; i-- {
		lower += root.Lower[i]
		if i > 0 {
			lower += ":"
		}
	}
	d.Data = map[string]string{"ID": r.ID, "LowerDir": lower, "UpperDir": root.Upper, "WorkDir": root.Work}
	if r.State.Status.Alive() {
		d.Data["MergedDir"] = procRoot(r.State.Pid)
	}
	return d
}
