package ociruntime

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"davit/kernel/sys"
)

// hostFacts are what plans need of the host; they do not change while the process lives.
type hostFacts struct {
	bounding    uint64
	raiseLimits bool
	hardLimits  map[int]uint64
}

func readHostFacts() (hostFacts, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return hostFacts{}, fmt.Errorf("read own capabilities: %w", err)
	}
	const sysResource = 24 // CAP_SYS_RESOURCE
	facts := hostFacts{bounding: hexField(status, "CapBnd:"), hardLimits: map[int]uint64{}}
	facts.raiseLimits = hexField(status, "CapEff:")&(1<<sysResource) != 0
	for resource := range 16 {
		_, hard, err := sys.Rlimit(0, resource)
		if err != nil {
			return hostFacts{}, fmt.Errorf("read own resource limits: %w", err)
		}
		facts.hardLimits[resource] = hard
	}
	return facts, nil
}

// hexField returns a hexadecimal field of /proc/PID/status; a missing one is 0.
func hexField(status []byte, name string) uint64 {
	_, rest, _ := bytes.Cut(status, []byte("\n"+name))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	value, _ := strconv.ParseUint(strings.TrimSpace(string(line)), 16, 64)
	return value
}

// startTimeOf returns when a process started, in clock ticks since boot, and whether it is dead and
// only waits to be reaped. proc_pid_stat(5).
func startTimeOf(pid int) (ticks uint64, dead bool, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false, fmt.Errorf("read process: %w", err)
	}
	_, after, found := strings.Cut(string(b[bytes.LastIndexByte(b, ')')+1:]), " ")
	fields := strings.Fields(after) // from the third on
	if !found || len(fields) < 20 {
		return 0, false, fmt.Errorf("read process: /proc/%d/stat is not understood", pid)
	}
	ticks, err = strconv.ParseUint(fields[19], 10, 64)
	return ticks, fields[0] == "Z" || fields[0] == "X", err
}
