package container

import (
	"testing"

	"github.com/moby/moby/api/types/container"
)

func TestCheckCPUs(t *testing.T) {
	h := HostFacts{CPUs: 4, OnlineCPUs: "0-2,4", OnlineNodes: "0"}
	for asked, want := range map[string]string{
		"": "", "0": "", "0-2": "", "0, 4": "", "2-1": "Invalid value 2-1 for cpuset cpus: it is a list like 0-3,5",
		"3":   "Requested CPUs are not available - requested 3, available: 0-2,4",
		"2-4": "Requested CPUs are not available - requested 2-4, available: 0-2,4",
		"x":   "Invalid value x for cpuset cpus: it is a list like 0-3,5",
		"-1":  "Invalid value -1 for cpuset cpus: it is a list like 0-3,5",
	} {
		got := ""
		if err := CheckCPUs(&container.Resources{CpusetCpus: asked}, h); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", asked, got, want)
		}
	}
	if err := CheckCPUs(&container.Resources{CpusetMems: "1"}, h); err == nil {
		t.Error("a memory node that is not there was accepted")
	}
	if err := CheckCPUs(&container.Resources{CpusetMems: "1", CpusetCpus: "99"}, HostFacts{CPUs: 4}); err != nil {
		t.Errorf("where nothing is known of the host: %v", err)
	}
	if err := CheckCPUs(&container.Resources{NanoCPUs: 5e9}, h); err == nil {
		t.Error("five of four CPUs were accepted")
	}
}
