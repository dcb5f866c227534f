package engine

import (
	"context"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"davit/image"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/auth"
)

// Images keeps images. Errors have Docker's words.
type Images struct{ *shared }

// Report takes the progress of a long operation.
type Report func(image.Progress)

func (s *shared) tellImage(action events.Action, id, name string) {
	s.bus.Publish(events.ImageEventType, action, id, map[string]string{"name": name})
}

// List returns images, newest first, with the number of containers that use each.
func (i *Images) List(ctx context.Context, all bool, f Filters) ([]wire.Summary, error) {
	o, err := i.listOptions(all, f)
	if err != nil {
		return nil, err
	}
	images, err := i.Options.Images.List(ctx, o)
	if err != nil {
		return nil, err
	}
	users := i.ImageUsers()
	list := []wire.Summary{}
	for _, img := range images {
		s := imageSummary(img)
		s.Containers = int64(len(users[img.ID]))
		list = append(list, s)
	}
	return list, nil
}

func (i *Images) listOptions(all bool, f Filters) (image.ListOptions, error) {
	if err := f.Only("before", "since", "dangling", "label", "label!", "reference", "until"); err != nil {
		return image.ListOptions{}, err
	}
	o := image.ListOptions{All: all, Reference: f["reference"], Labels: labelMap(f["label"]), NotLabels: labelMap(f["label!"])}
	for _, pattern := range o.Reference {
		if err := image.CheckPattern(pattern); err != nil {
			return o, err
		}
	}
	if v, given, err := f.Flag("dangling"); err != nil {
		return o, err
	} else if given {
		o.Dangling = &v
	}
	if v := f["before"]; len(v) > 0 {
		o.Before = v[0]
	}
	if v := f["since"]; len(v) > 0 {
		o.Since = v[0]
	}
	var err error
	o.Until, err = f.Until(i.Now())
	return o, err
}

func labelMap(labels []string) map[string]string {
	m := map[string]string{}
	for _, l := range labels {
		name, value, _ := strings.Cut(l, "=")
		m[name] = value
	}
	return m
}

func imageSummary(img image.Image) wire.Summary {
	s := wire.Summary{
		ID: string(img.ID), ParentID: string(img.Parent), Created: img.Created().Unix(), Labels: img.Config.Config.Labels,
		RepoTags: append([]string{}, img.RepoTags...), RepoDigests: append([]string{}, img.RepoDigests...),
		Size: img.Size, SharedSize: -1, Descriptor: wireDescriptor(img.Manifest),
	}
	if img.Created().IsZero() {
		s.Created = 0
	}
	return s
}

// ImageUsers returns the containers of each image; it is what image.Store asks before it removes one.
func (s *shared) ImageUsers() map[oci.Digest][]image.User {
	users := map[oci.Digest][]image.User{}
	for _, a := range s.roster.all() {
		r := a.record()
		users[r.Image.ID] = append(users[r.Image.ID], image.User{Container: r.ID, Running: r.State.Status.Alive()})
	}
	return users
}

// Inspect describes an image.
func (i *Images) Inspect(ctx context.Context, name string, platform *oci.Platform) (wire.InspectResponse, error) {
	img, err := i.resolve(ctx, name, platform)
	if err != nil {
		return wire.InspectResponse{}, err
	}
	c := img.Config
	r := wire.InspectResponse{
		ID: string(img.ID), RepoTags: append([]string{}, img.RepoTags...), RepoDigests: append([]string{}, img.RepoDigests...),
		Comment: c.Comment, Author: c.Author, Config: wireImageConfig(c.Config), Architecture: c.Architecture, Variant: c.Variant,
		Os: c.OS, OsVersion: c.OSVersion, Size: img.Size, Metadata: wire.Metadata{LastTagTime: img.Updated},
		RootFS: wire.RootFS{Type: "layers"}, Descriptor: wireDescriptor(img.Manifest), GraphDriver: i.imageGraph(img),
	}
	if t := img.Created(); !t.IsZero() {
		r.Created = t.Format(time.RFC3339Nano)
	}
	for _, l := range img.Layers {
		r.RootFS.Layers = append(r.RootFS.Layers, string(l))
	}
	return r, nil
}

func (i *Images) resolve(ctx context.Context, name string, platform *oci.Platform) (image.Image, error) {
	img, err := i.Options.Images.Resolve(ctx, name, platform)
	if isNotFound(err) {
		return img, noSuchImage(name)
	}
	return img, err
}

func (i *Images) imageGraph(img image.Image) *storage.DriverData {
	d := &storage.DriverData{Name: "overlay2", Data: map[string]string{}}
	dirs, err := i.Layers.Dirs(img.Layers...)
	if err != nil || len(dirs) == 0 {
		return d
	}
	last := len(dirs) - 1
	d.Data["UpperDir"] = dirs[last]
	var lower []string
	for n := last - 1; n >= 0; n-- {
		lower = append(lower, dirs[n])
	}
	if len(lower) > 0 {
		d.Data["LowerDir"] = strings.Join(lower, ":")
	}
	return d
}

func wireImageConfig(c oci.Config) *dockerspec.DockerOCIImageConfig {
	w := &dockerspec.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{
			User: c.User, ExposedPorts: c.ExposedPorts, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, Volumes: c.Volumes,
			//lint:ignore SA1019 ArgsEscaped is passed on as the image has it
			WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal, ArgsEscaped: c.ArgsEscaped,
		},
		DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{OnBuild: c.OnBuild, Shell: c.Shell},
	}
	if h := c.Healthcheck; h != nil {
		w.Healthcheck = &dockerspec.HealthcheckConfig{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	return w
}

// History returns an image's steps, newest first.
func (i *Images) History(ctx context.Context, name string) ([]wire.HistoryResponseItem, error) {
	entries, err := i.Options.Images.History(ctx, name)
	if isNotFound(err) {
		return nil, noSuchImage(name)
	}
	if err != nil {
		return nil, err
	}
	list := []wire.HistoryResponseItem{}
	for _, e := range entries {
		list = append(list, wire.HistoryResponseItem{ID: e.ID, Created: e.Created.Unix(), CreatedBy: e.CreatedBy, Tags: e.Tags, Size: e.Size, Comment: e.Comment})
	}
	return list, nil
}

// Tag gives an image another name.
func (i *Images) Tag(ctx context.Context, source, repo, tag string) error {
	target, err := ref.Parse(repo)
	if err != nil {
		return errdefs.Invalid("invalid reference format")
	}
	if target.Digest != "" {
		return errdefs.Invalid("refusing to create a tag with a digest reference")
	}
	if tag != "" {
		if target, err = ref.Parse(target.Name() + ":" + tag); err != nil {
			return errdefs.Invalid("invalid tag format")
		}
	}
	target = target.WithDefaultTag()
	img, err := i.resolve(ctx, source, nil)
	if err != nil {
		return err
	}
	if err := i.Options.Images.Tag(ctx, source, target, image.ByTag); err != nil {
		return err
	}
	i.tellImage(events.ActionTag, string(img.ID), target.Familiar())
	return nil
}

// Remove takes away a name, and the image with its last name.
func (i *Images) Remove(ctx context.Context, name string, o image.RemoveOptions) ([]wire.DeleteResponse, error) {
	img, err := i.resolve(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	deleted, err := i.Options.Images.Remove(ctx, name, o)
	if err != nil {
		return nil, err
	}
	return i.deletions(img.ID, deleted), nil
}

func (i *Images) deletions(id oci.Digest, deleted []image.Deleted) []wire.DeleteResponse {
	list := []wire.DeleteResponse{}
	for _, d := range deleted {
		switch {
		case d.Untagged != "":
			i.tellImage(events.ActionUnTag, string(id), string(id))
		case !d.Layer:
			i.tellImage(events.ActionDelete, string(d.Deleted), string(d.Deleted))
		}
		list = append(list, wire.DeleteResponse{Untagged: d.Untagged, Deleted: string(d.Deleted)})
	}
	return list
}

// Prune removes images that nothing uses.
func (i *Images) Prune(ctx context.Context, f Filters) (wire.PruneReport, error) {
	if err := f.Only("dangling", "label", "label!", "until"); err != nil {
		return wire.PruneReport{}, err
	}
	dangling, given, err := f.Flag("dangling")
	if err != nil {
		return wire.PruneReport{}, err
	}
	until, err := f.Until(i.Now())
	if err != nil {
		return wire.PruneReport{}, err
	}
	pruned, err := i.Options.Images.Prune(ctx, image.PruneOptions{All: given && !dangling, Until: until, Labels: labelMap(f["label"]), NotLabels: labelMap(f["label!"])})
	if err == nil {
		err = i.Layers.Wait(ctx)
	}
	if err != nil {
		return wire.PruneReport{}, err
	}
	report := wire.PruneReport{SpaceReclaimed: uint64(pruned.Reclaimed)}
	for _, d := range pruned.Deleted {
		report.ImagesDeleted = append(report.ImagesDeleted, wire.DeleteResponse{Untagged: d.Untagged, Deleted: string(d.Deleted)})
		if d.Deleted != "" && !d.Layer {
			i.tellImage(events.ActionDelete, string(d.Deleted), string(d.Deleted))
		}
	}
	i.bus.Publish(events.ImageEventType, events.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(report.SpaceReclaimed)})
	return report, nil
}

// Pull fetches an image. Without tag or digest and with all, it fetches every tag.
func (i *Images) Pull(ctx context.Context, r ref.Ref, platform *oci.Platform, creds auth.Credentials, report Report) (image.Pulled, error) {
	repo, err := i.Registries.Repository(r, creds)
	if err != nil {
		return image.Pulled{}, err
	}
	defer repo.Close()
	pulled, err := i.Options.Images.Pull(ctx, r, image.PullOptions{Source: repo, Platform: platform, Progress: report})
	if err != nil {
		return image.Pulled{}, err
	}
	i.tellImage(events.ActionPull, r.Familiar(), r.FamiliarName())
	return pulled, nil
}

// Push sends an image.
func (i *Images) Push(ctx context.Context, r ref.Ref, platform *oci.Platform, creds auth.Credentials, report Report) (image.Pushed, error) {
	repo, err := i.Registries.Repository(r, creds)
	if err != nil {
		return image.Pushed{}, err
	}
	defer repo.Close()
	pushed, err := i.Options.Images.Push(ctx, r, image.PushOptions{Sink: repo, Platform: platform, Progress: report})
	if err != nil {
		return image.Pushed{}, err
	}
	i.tellImage(events.ActionPush, r.Familiar(), r.FamiliarName())
	return pushed, nil
}

// Tags returns the tags of a repository, local or (for a pull of all) the registry's.
func (i *Images) Tags(ctx context.Context, r ref.Ref, creds auth.Credentials) ([]string, error) {
	return i.Registries.Tags(ctx, r, creds)
}

// LocalTags returns the tags that images here have in a repository.
func (i *Images) LocalTags(ctx context.Context, r ref.Ref) ([]string, error) {
	images, err := i.Options.Images.List(ctx, image.ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, img := range images {
		for _, name := range img.RepoTags {
			if tagged, err := ref.Parse(name); err == nil && tagged.Name() == r.Name() {
				tags = append(tags, tagged.Tag)
			}
		}
	}
	sort.Strings(tags)
	if len(tags) == 0 {
		return nil, errdefs.NotFound("An image does not exist locally with the tag: %s", r.FamiliarName())
	}
	return tags, nil
}

// Save writes images as one archive; with since, only what whoever has those images lacks.
func (i *Images) Save(ctx context.Context, names, since []string, w io.Writer) error {
	for _, name := range names {
		img, err := i.resolve(ctx, name, nil)
		if err != nil {
			return err
		}
		i.tellImage(events.ActionSave, string(img.ID), string(img.ID))
	}
	if len(since) > 0 {
		return i.Options.Images.SaveSince(ctx, names, since, w)
	}
	return i.Options.Images.Save(ctx, names, w)
}

// Load reads the images of an archive.
func (i *Images) Load(ctx context.Context, r io.Reader, o image.LoadOptions) ([]image.Loaded, error) {
	loaded, err := i.Options.Images.Load(ctx, r, o)
	for _, l := range loaded {
		i.tellImage(events.ActionLoad, string(l.ID), string(l.ID))
	}
	i.afterFull(ctx, err)
	return loaded, err
}

// Import makes an image of a root file system's tar.
func (i *Images) Import(ctx context.Context, r io.Reader, o image.ImportOptions) (image.Image, error) {
	img, err := i.Options.Images.Import(ctx, r, o)
	if err == nil {
		for _, name := range o.Names {
			i.tellImage(events.ActionTag, string(img.ID), name.Familiar())
		}
		i.tellImage(events.ActionImport, string(img.ID), string(img.ID))
	}
	i.afterFull(ctx, err)
	return img, err
}

// Distribution returns a reference's descriptor at its registry, and the platforms it is for.
func (i *Images) Distribution(ctx context.Context, r ref.Ref, creds auth.Credentials) (oci.Descriptor, []oci.Platform, error) {
	repo, err := i.Registries.Repository(r, creds)
	if err != nil {
		return oci.Descriptor{}, nil, err
	}
	defer repo.Close()
	return inspectDistribution(ctx, repo, r)
}

// Login checks credentials at a registry.
func (i *Images) Login(ctx context.Context, creds auth.Credentials) (string, error) {
	return i.Registries.Login(ctx, creds)
}
