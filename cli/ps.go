package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"davit/cli/format"
	"davit/cli/opts"
)

var psHeadings = format.Headings{
	"ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED", "Status": "STATUS",
	"State": "STATE", "Ports": "PORTS", "Names": "NAMES", "Labels": "LABELS", "Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES",
	"Networks": "NETWORKS", "Size": "SIZE", "Platform": "PLATFORM",
}

func (a *app) psCommand() *cobra.Command { return a.listContainers("ps [OPTIONS]") }

func (a *app) listContainers(use string) *cobra.Command {
	var all, latest, noTrunc, quiet, size bool
	var last int
	var spec string
	var filter []string
	cmd := &cobra.Command{
		Use:   use,
		Short: "List containers",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, err := filterQuery(filter)
			if err != nil {
				return err
			}
			set := func(key, value string, on bool) {
				if on {
					query.Set(key, value)
				}
			}
			if latest {
				last = 1
			}
			set("all", "1", all || last > 0)
			set("limit", strconv.Itoa(last), last > 0)
			set("size", "1", size || strings.Contains(spec, ".Size"))
			engine, err := a.client()
			if err != nil {
				return err
			}
			var found []container.Summary
			if err := engine.Get(cmd.Context(), "/containers/json", query, &found); err != nil {
				return err
			}
			return a.printContainers(found, spec, quiet, noTrunc, size)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&all, "all", "a", false, "Show all containers (default shows just running)")
	flags.VarP(opts.ListOf(&filter), "filter", "f", "Filter output based on conditions provided")
	flags.StringVar(&spec, "format", "", "Format output using a custom template")
	flags.IntVarP(&last, "last", "n", -1, "Show n last created containers (includes all states)")
	flags.BoolVarP(&latest, "latest", "l", false, "Show the latest created container (includes all states)")
	flags.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	flags.BoolVarP(&quiet, "quiet", "q", false, "Only display container IDs")
	flags.BoolVarP(&size, "size", "s", false, "Display total file sizes")
	return cmd
}

func (a *app) printContainers(found []container.Summary, spec string, quiet, noTrunc, size bool) error {
	rows := make([]containerLine, 0, len(found))
	for _, c := range found {
		rows = append(rows, containerRow(c, noTrunc))
	}
	if quiet && spec == "" {
		return format.Quiet(a.out, rows, func(r containerLine) string { return r.ID })
	}
	table := `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}`
	if size {
		table += `\t{{.Size}}`
	}
	return format.List(a.out, spec, table, psHeadings, rows)
}

// containerLine is a row of ps; its fields are docker's.
type containerLine struct {
	Command, CreatedAt, ID, Image, Labels, LocalVolumes, Mounts, Names, Networks, Platform, Ports, RunningFor, Size, State, Status string

	labels map[string]string
}

// Label is the value of one label.
func (l containerLine) Label(name string) string { return l.labels[name] }

func containerRow(c container.Summary, noTrunc bool) containerLine {
	id, command := c.ID, strconv.Quote(c.Command)
	image := c.Image
	if !noTrunc {
		id, command = short(id), strconv.Quote(ellipsis(c.Command, 20))
		if strings.HasPrefix(image, "sha256:") {
			image = short(image)
		}
	}
	created := time.Unix(c.Created, 0)
	names := make([]string, 0, len(c.Names))
	for _, name := range c.Names {
		if name = strings.TrimPrefix(name, "/"); noTrunc || !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	labels := make([]string, 0, len(c.Labels))
	for _, key := range slices.Sorted(maps.Keys(c.Labels)) {
		labels = append(labels, key+"="+c.Labels[key])
	}
	mounts, local := mountNames(c, noTrunc)
	networks := []string{}
	if c.NetworkSettings != nil {
		networks = slices.Sorted(maps.Keys(c.NetworkSettings.Networks))
	}
	return containerLine{
		ID: id, Image: image, Command: command, CreatedAt: created.Format("2006-01-02 15:04:05 -0700 MST"),
		RunningFor: units.HumanDuration(time.Since(created)) + " ago", Status: c.Status, State: string(c.State), Ports: portSummary(c.Ports),
		Names: strings.Join(names, ","), Labels: strings.Join(labels, ","), Mounts: strings.Join(mounts, ","), LocalVolumes: strconv.Itoa(local),
		Networks: strings.Join(networks, ","), labels: c.Labels,
		Size: fmt.Sprintf("%s (virtual %s)", units.HumanSizeWithPrecision(float64(c.SizeRw), 3), units.HumanSizeWithPrecision(float64(c.SizeRootFs), 3)),
	}
}

func mountNames(c container.Summary, noTrunc bool) (names []string, local int) {
	for _, m := range c.Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if !noTrunc {
			name = ellipsis(name, 15)
		}
		if m.Driver == "local" {
			local++
		}
		names = append(names, name)
	}
	return names, local
}

func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}

// ellipsis cuts a text to n characters, the last of them an ellipsis.
func ellipsis(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:n-1]) + "…"
}

// portSummary joins ports that follow each other, as "0.0.0.0:80-82->80-82/tcp".
func portSummary(ports []container.PortSummary) string {
	sorted := slices.Clone(ports)
	slices.SortFunc(sorted, func(x, y container.PortSummary) int {
		return strings.Compare(portKey(x), portKey(y))
	})
	var words []string
	for i := 0; i < len(sorted); {
		j := i + 1
		for j < len(sorted) && follows(sorted[j-1], sorted[j]) {
			j++
		}
		words = append(words, portWord(sorted[i], sorted[j-1]))
		i = j
	}
	return strings.Join(words, ", ")
}

func portKey(p container.PortSummary) string {
	published := 1 // unpublished ports come last
	if p.PublicPort == 0 {
		published = 2
	}
	return fmt.Sprintf("%d %s %v %05d %05d", published, p.Type, p.IP, p.PrivatePort, p.PublicPort)
}

func follows(x, y container.PortSummary) bool {
	if x.IP != y.IP || x.Type != y.Type || y.PrivatePort != x.PrivatePort+1 {
		return false
	}
	return x.PublicPort == 0 && y.PublicPort == 0 || x.PublicPort != 0 && y.PublicPort == x.PublicPort+1
}

func portWord(first, last container.PortSummary) string {
	private := portSpan(first.PrivatePort, last.PrivatePort) + "/" + first.Type
	if first.PublicPort == 0 {
		return private
	}
	public := portSpan(first.PublicPort, last.PublicPort)
	if first.IP.IsValid() {
		ip := first.IP.String()
		if first.IP.Is6() {
			ip = "[" + ip + "]"
		}
		public = ip + ":" + public
	}
	return public + "->" + private
}

func portSpan(first, last uint16) string {
	if first == last {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, last)
}
