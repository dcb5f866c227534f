package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/sys/signal"
)

func (l *lowering) expose(c *instructions.ExposeCommand) error {
	ports := map[string]struct{}{}
	known := l.variables()
	for _, word := range c.Ports {
		words, err := shell.NewLex(l.stage.plan.escape).ProcessWords(word, known)
		if err != nil {
			return err
		}
		for _, spec := range words {
			list, err := ParsePorts(spec)
			if err != nil {
				return err
			}
			for _, port := range list {
				ports[port] = struct{}{}
			}
		}
	}
	l.note("EXPOSE", "["+strings.Join(slices.Sorted(maps.Keys(ports)), " ")+"]")
	all := maps.Clone(l.config.ExposedPorts)
	if all == nil {
		all = map[string]struct{}{}
	}
	maps.Copy(all, ports)
	l.config.ExposedPorts = all
	return nil
}

// ParsePorts reads what EXPOSE takes, PORT[-PORT][/tcp|udp|sctp], as ports of the form "80/tcp".
func ParsePorts(spec string) ([]string, error) {
	ports, protocol, ok := strings.Cut(spec, "/")
	protocol = strings.ToLower(protocol)
	if !ok || protocol == "" {
		protocol = "tcp"
	}
	if protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
		return nil, fmt.Errorf("invalid proto: %s", protocol)
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	low, err1 := strconv.ParseUint(first, 10, 16)
	high, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || low > high {
		return nil, fmt.Errorf("invalid containerPort: %s", spec)
	}
	var list []string
	for port := low; port <= high; port++ {
		list = append(list, fmt.Sprintf("%d/%s", port, protocol))
	}
	return list, nil
}

func checkSignal(name string) error {
	if _, err := signal.ParseSignal(name); err != nil {
		return err
	}
	return nil
}
