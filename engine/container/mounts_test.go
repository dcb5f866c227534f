package container

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"davit/oci/errdefs"
)

func TestParseBind(t *testing.T) {
	for spec, want := range map[string]Mount{
		"/host:/in":           {Type: mount.TypeBind, Source: "/host", Destination: "/in", RW: true, Propagation: mount.PropagationRPrivate, CreateSource: true},
		"/host:/in:ro,rslave": {Type: mount.TypeBind, Source: "/host", Destination: "/in", Mode: "ro,rslave", Propagation: mount.PropagationRSlave, CreateSource: true},
		"data:/in/:nocopy":    {Type: mount.TypeVolume, Name: "data", Destination: "/in", Mode: "nocopy", RW: true, NoCopy: true, Driver: "local"},
		"/anonymous":          {Type: mount.TypeVolume, Destination: "/anonymous", RW: true, Anonymous: true, FromImage: true, Driver: "local"},
		"/host:/in:Z":         {Type: mount.TypeBind, Source: "/host", Destination: "/in", Mode: "Z", RW: true, Propagation: mount.PropagationRPrivate, CreateSource: true},
	} {
		got, err := ParseBind(spec, "")
		if err != nil {
			t.Errorf("%q: %v", spec, err)
		} else if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: -want +got\n%s", spec, d)
		}
	}
	for _, spec := range []string{"", ":", "/a:", ":/b", "/a:/b:ro:x", "/a:b", "/a:/", "/", "/a:/b:rx", "vol:/b:rshared"} {
		if m, err := ParseBind(spec, ""); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: got %+v, %v; want invalid", spec, m, err)
		}
	}
}

func TestParseMountsPrefersWhatTheUserWrote(t *testing.T) {
	c := &container.Config{Volumes: map[string]struct{}{"/data": {}, "/other": {}}}
	h := &container.HostConfig{Binds: []string{"mine:/data"}, VolumesFrom: []string{"peer:ro"}}
	from := func(string) ([]Mount, error) {
		return []Mount{
			{Type: mount.TypeVolume, Name: "theirs", Destination: "/data", RW: true},
			{Type: mount.TypeVolume, Name: "shared", Destination: "/shared", RW: true, Anonymous: true},
			{Type: mount.TypeTmpfs, Destination: "/tmp"},
		}, nil
	}
	mounts, err := ParseMounts(c, h, from)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range mounts {
		got[m.Destination] = m.Name
		if m.Name == "shared" && (m.RW || m.Anonymous) {
			t.Errorf("inherited mount %+v: want it read-only, and the other container's to remove", m)
		}
	}
	if d := cmp.Diff(map[string]string{"/data": "mine", "/other": "", "/shared": "shared"}, got); d != "" {
		t.Error(d)
	}
}

func TestParseMountsRefusesTwoAtOnePlace(t *testing.T) {
	h := &container.HostConfig{Binds: []string{"a:/data"}, Tmpfs: map[string]string{"/data/": ""}}
	_, err := ParseMounts(&container.Config{}, h, nil)
	if err == nil || err.Error() != "Duplicate mount point: /data" {
		t.Errorf("got %v", err)
	}
}

func TestTmpfsOptionsTakeBackDefaults(t *testing.T) {
	if d := cmp.Diff([]string{"nosuid", "nodev", "exec", "size=64", "mode=700"}, TmpfsOptions("exec", 64, 0o700)); d != "" {
		t.Error(d)
	}
}
