package container

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/kernel/cap"
)

var update = flag.Bool("update", false, "write the golden files")

// exampleID is the container of the examples in the docs.
const exampleID = "4f2a66d1c8e04b7f9d3a5e1c2b4d6f8091a3b5c7d9e1f2a4b6c8d0e2f4a6b8c0"

func example(change func(*SpecInput)) SpecInput {
	in := SpecInput{
		Record: &Record{
			ID: exampleID, Name: "web",
			Config:     &container.Config{Hostname: exampleID[:12], Cmd: []string{"httpd", "-f"}, Env: []string{"A=b"}},
			HostConfig: &container.HostConfig{NetworkMode: "bridge", IpcMode: "private", CgroupnsMode: "private"},
			UserNS:     UserNamespace{Mode: UserPrivate, Base: 1 << 20, Size: 1 << 16},
		},
		User:  User{Home: "/root"},
		Files: Files{Hostname: "/c/hostname", Hosts: "/c/hosts", Resolv: "/c/resolv.conf"},
		Facts: HostFacts{CgroupParent: "/davit", Capabilities: append(cap.Default(), "CAP_NET_ADMIN", "CAP_SYS_ADMIN")},
	}
	change(&in)
	return in
}

func TestBuildSpec(t *testing.T) {
	limit := int64(50)
	for name, change := range map[string]func(*SpecInput){
		"default": func(*SpecInput) {},
		"privileged": func(in *SpecInput) {
			in.Record.HostConfig.Privileged = true
			in.Record.UserNS = UserNamespace{Mode: UserHost, Reason: "--privileged"}
		},
		"host-network": func(in *SpecInput) {
			in.Record.HostConfig.NetworkMode = "host"
			in.Record.UserNS = UserNamespace{Mode: UserHost, Reason: "--network=host"}
		},
		"limits-and-mounts": func(in *SpecInput) {
			in.Record.HostConfig.Resources = container.Resources{Memory: 64 << 20, MemorySwap: 128 << 20, NanoCPUs: 5e8, PidsLimit: &limit}
			in.Record.Mounts = []Mount{
				{Type: mount.TypeVolume, Name: "v", Source: "/v/_data", Destination: "/data/deep", RW: true},
				{Type: mount.TypeBind, Source: "/src", Destination: "/data", Propagation: mount.PropagationRSlave},
				{Type: mount.TypeTmpfs, Destination: "/dev/shm", Options: []string{"size=1"}},
			}
			in.User = User{UID: 1000, GID: 100, Groups: []uint32{5}, Home: "/home/u"}
		},
		"joined": func(in *SpecInput) {
			in.Record.HostConfig.NetworkMode, in.Record.HostConfig.PidMode = "container:x", "container:x"
			in.Record.UserNS = UserNamespace{Mode: UserShared, Base: 1 << 20, Size: 1 << 16, Joined: "x"}
			in.Join = Join{Net: "/proc/7/ns/net", PID: "/proc/7/ns/pid", User: "/proc/7/ns/user"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec, err := BuildSpec(example(change))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, spec)
		})
	}
}

func golden(t *testing.T, name string, spec *specs.Spec) {
	t.Helper()
	got, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.TrimSpace(string(want)), string(got)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestBuildSpecRefusesTheHostsSysctls(t *testing.T) {
	for name, allowed := range map[string]bool{"net.core.somaxconn": true, "kernel.msgmax": true, "kernel.panic": false, "vm.swappiness": false} {
		_, err := BuildSpec(example(func(in *SpecInput) { in.Record.HostConfig.Sysctls = map[string]string{name: "1"} }))
		if (err == nil) != allowed {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := BuildSpec(example(func(in *SpecInput) {
		in.Record.HostConfig.NetworkMode, in.Record.HostConfig.Sysctls = "host", map[string]string{"net.core.somaxconn": "1"}
	}))
	if err == nil {
		t.Error("a sysctl of the host's network was accepted")
	}
}

func TestBuildSpecIgnoresAppArmorThatIsNotThere(t *testing.T) {
	for there, want := range map[bool]string{true: "custom", false: ""} {
		spec, err := BuildSpec(example(func(in *SpecInput) {
			in.Record.HostConfig.SecurityOpt = []string{"apparmor=custom"}
			in.Facts.HasPath = func(path string) bool { return path != "/sys/kernel/security/apparmor" || there }
		}))
		if err != nil || spec.Process.ApparmorProfile != want {
			t.Errorf("AppArmor %v: %v, profile %q", there, err, spec.Process.ApparmorProfile)
		}
	}
}

func TestBuildSpecLimitsDevices(t *testing.T) {
	device := func(path string) ([]specs.LinuxDevice, error) {
		switch path {
		case "/dev/disk":
			return []specs.LinuxDevice{{Path: path, Type: "b", Major: 8, Minor: 1}}, nil
		case "/dev/null":
			return []specs.LinuxDevice{{Path: path, Type: "c", Major: 1, Minor: 3}}, nil
		}
		return nil, os.ErrNotExist
	}
	limited := func(path string) (*specs.LinuxBlockIO, error) {
		spec, err := BuildSpec(example(func(in *SpecInput) {
			h := in.Record.HostConfig
			h.BlkioWeight, h.BlkioWeightDevice = 300, []*blkiodev.WeightDevice{{Path: path, Weight: 200}}
			h.BlkioDeviceReadBps, h.BlkioDeviceWriteIOps = []*blkiodev.ThrottleDevice{{Path: path, Rate: 1000}}, []*blkiodev.ThrottleDevice{{Path: path, Rate: 7}}
			in.Facts.Device = device
		}))
		if err != nil {
			return nil, err
		}
		return spec.Linux.Resources.BlockIO, nil
	}
	io, err := limited("/dev/disk")
	if err != nil || *io.Weight != 300 || *io.WeightDevice[0].Weight != 200 || io.WeightDevice[0].Major != 8 || io.ThrottleWriteBpsDevice != nil ||
		io.ThrottleReadBpsDevice[0].Rate != 1000 || io.ThrottleReadBpsDevice[0].Minor != 1 || io.ThrottleWriteIOPSDevice[0].Rate != 7 {
		t.Errorf("%+v, %v", io, err)
	}
	for _, path := range []string{"/dev/null", "/dev/absent"} {
		if io, err := limited(path); err == nil {
			t.Errorf("%s: %+v", path, io)
		}
	}
}

func TestMergeEnv(t *testing.T) {
	got := MergeEnv([]string{"A=1", "B=2", "C=3"}, []string{"B=x", "C", "D=4"})
	if d := cmp.Diff([]string{"A=1", "B=x", "D=4"}, got); d != "" {
		t.Error(d)
	}
}

func TestParseDeviceRule(t *testing.T) {
	for text, ok := range map[string]bool{"c 1:3 rwm": true, "b *:* m": true, "a 7:* r": true, "x 1:3 r": false, "c 1 r": false, "c 1:3 z": false, "c -1:3 r": false} {
		if _, err := ParseDeviceRule(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}
