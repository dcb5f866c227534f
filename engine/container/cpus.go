package container

import (
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"

	"davit/oci/errdefs"
)

// CheckCPUs refuses more processors than there are, and processors and memory nodes that are not there.
func CheckCPUs(r *container.Resources, h HostFacts) error {
	if r.NanoCPUs > int64(h.CPUs)*1e9 {
		return errdefs.Invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", h.CPUs, h.CPUs)
	}
	for _, set := range []struct{ name, what, asked, online string }{
		{"cpus", "CPUs", r.CpusetCpus, h.OnlineCPUs},
		{"mems", "memory nodes", r.CpusetMems, h.OnlineNodes},
	} {
		asked, ok := parseSet(set.asked)
		if !ok {
			return errdefs.Invalid("Invalid value %s for cpuset %s: it is a list like 0-3,5", set.asked, set.name)
		}
		online, _ := parseSet(set.online)
		for _, part := range asked {
			if set.online != "" && !within(part, online) {
				return errdefs.Invalid("Requested %s are not available - requested %s, available: %s", set.what, set.asked, set.online)
			}
		}
	}
	return nil
}

// interval is from its first number to its second, both included.
type interval [2]int

// parseSet reads a list as of cpuset(7): "0-3,5". An empty one is valid.
func parseSet(text string) (set []interval, ok bool) {
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.Atoi(from)
		if err != nil {
			return nil, false
		}
		last, err := strconv.Atoi(to)
		if err != nil || first < 0 || last < first {
			return nil, false
		}
		set = append(set, interval{first, last})
	}
	return set, true
}

// within says whether all numbers of part are in set, whose intervals are sorted and apart.
func within(part interval, set []interval) bool {
	for _, i := range set {
		if part[0] >= i[0] && part[1] <= i[1] {
			return true
		}
	}
	return false
}
