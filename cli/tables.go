package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/moby/moby/api/types/network"

	"davit/api/client"
)

// failures does something to every name and reports those that failed; printing is do's business.
func (a *app) failures(names []string, do func(name string) error) error {
	var failed []error
	for _, name := range names {
		err := do(name)
		var answered *client.Error
		if errors.As(err, &answered) {
			err = fmt.Errorf("Error response from daemon: %w", err)
		}
		failed = append(failed, err)
	}
	if err := errors.Join(failed...); err != nil {
		return &exitError{1, err.Error()}
	}
	return nil
}

// columns prints cells as docker's tables.
func (a *app) columns(lines [][]string) error {
	w := tabwriter.NewWriter(a.out, 20, 1, 3, ' ', 0)
	for _, cells := range lines {
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// portLines are docker port's: "80/tcp -> 0.0.0.0:8080", or the address alone when one port was asked for.
func portLines(ports network.PortMap, wanted string) []string {
	order := slices.SortedFunc(maps.Keys(ports), func(x, y network.Port) int {
		return strings.Compare(fmt.Sprintf("%05d/%s", x.Num(), x.Proto()), fmt.Sprintf("%05d/%s", y.Num(), y.Proto()))
	})
	var lines []string
	for _, port := range order {
		if wanted != "" && port.String() != wanted {
			continue
		}
		for _, binding := range ports[port] {
			ip := "0.0.0.0"
			if binding.HostIP.IsValid() {
				ip = binding.HostIP.String()
			}
			if strings.Contains(ip, ":") {
				ip = "[" + ip + "]"
			}
			line := ip + ":" + binding.HostPort
			if wanted == "" {
				line = port.String() + " -> " + line
			}
			lines = append(lines, line)
		}
	}
	return lines
}
