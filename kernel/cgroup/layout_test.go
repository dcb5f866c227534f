package cgroup

import (
	"fmt"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseLayout(t *testing.T) {
	for _, tc := range []struct {
		name, mounts, own, want string
	}{
		{
			"v2",
			"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			"0::/user.slice/a.scope\n",
			"v2 [:/sys/fs/cgroup:/user.slice/a.scope]",
		}, {
			"hybrid",
			"1 0 0:1 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw\n" +
				"2 0 0:2 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n" +
				"3 0 0:3 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
				"4 0 0:3 / /other rw - cgroup cgroup rw,cpu,cpuacct\n",
			"5:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/c\n",
			"hybrid [:/sys/fs/cgroup/unified:/c name=systemd:/sys/fs/cgroup/systemd:/b cpu,cpuacct:/sys/fs/cgroup/cpu,cpuacct:/a]",
		}, {
			"v1 inside a container without a cgroup namespace",
			"3 0 0:3 /docker/1 /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n",
			"5:pids:/docker/1/inner\n",
			"v1 [pids:/sys/fs/cgroup/pids:/inner]",
		}, {
			"systemd's v1 hierarchy without controllers is v2",
			"1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n2 0 0:2 / /cg rw - cgroup cgroup rw,name=systemd\n",
			"0::/\n",
			"v2 [:/sys/fs/cgroup:/]",
		},
	} {
		l, err := parseLayout(strings.NewReader(tc.mounts), tc.own)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		var parts []string
		for _, h := range l.Hierarchies {
			parts = append(parts, strings.Join(h.Controllers, ",")+":"+h.Mountpoint+":"+h.Own)
		}
		if got := fmt.Sprintf("%s %v", l.Mode, parts); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
	}
	if _, err := parseLayout(strings.NewReader(""), ""); err == nil {
		t.Error("a host without cgroups was accepted")
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000} {
		if got := weight(shares); got != want {
			t.Errorf("weight(%d) = %d, want %d", shares, got, want)
		}
	}
	for s := uint64(2); s < 262144; s *= 2 {
		if weight(s) > weight(2*s) {
			t.Errorf("weight(%d) > weight(%d)", s, 2*s)
		}
	}
}

func TestSettingsV2(t *testing.T) {
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr[int64](100), Swap: ptr[int64](150), Reservation: ptr[int64](50)},
		CPU:    &specs.LinuxCPU{Quota: ptr[int64](50000), Period: ptr[uint64](100000), Cpus: "0-1"},
		Pids:   &specs.LinuxPids{Limit: ptr[int64](-1)},
		BlockIO: &specs.LinuxBlockIO{
			Weight:                ptr[uint16](500),
			ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8}, Rate: 1000}},
		},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4096}},
		Unified:        map[string]string{"memory.high": "80"},
	}
	settings, err := settingsV2(dir{path: t.TempDir()}, r)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range settings {
		got = append(got, s.file+"="+s.value)
	}
	want := "memory.swap.max=50; memory.max=100; memory.low=50; cpu.max=50000 100000; cpuset.cpus=0-1; pids.max=max; " +
		"io.weight=4950; io.max=8:0 rbps=1000; hugetlb.2MB.max=4096; memory.high=80"
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("\n got %s\nwant %s", s, want)
	}
	for _, bad := range []map[string]string{{"../x.y": "1"}, {"nodot": "1"}} {
		if _, err := settingsV2(dir{}, &specs.LinuxResources{Unified: bad}); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

func TestScopeNames(t *testing.T) {
	slice, unit, err := scopeName("user-1000.slice:davit:abc")
	if err != nil || scopePath(slice, unit) != "/user.slice/user-1000.slice/davit-abc.scope" {
		t.Errorf("%s %s %v: %s", slice, unit, err, scopePath(slice, unit))
	}
	if slice, unit, _ = scopeName(":davit:abc"); scopePath(slice, unit) != "/system.slice/davit-abc.scope" {
		t.Errorf("default slice: %s", scopePath(slice, unit))
	}
	for _, bad := range []string{"", "a:b", "a:b:", "/a:b:c"} {
		if _, _, err := scopeName(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
