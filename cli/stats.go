package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"davit/cli/format"
	"davit/oci/errdefs"
)

var statsHeadings = format.Headings{
	"Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
	"MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
}

// statsLine is a row of stats; its fields are docker's.
type statsLine struct {
	BlockIO, CPUPerc, Container, ID, MemPerc, MemUsage, Name, NetIO, PIDs string
}

func (a *app) statsCommand() *cobra.Command {
	var all, noStream, noTrunc bool
	var spec string
	cmd := &cobra.Command{
		Use:   "stats [OPTIONS] [CONTAINER...]",
		Short: "Display a live stream of container(s) resource usage statistics",
		RunE: func(cmd *cobra.Command, args []string) error {
			for {
				lines, err := a.sample(cmd.Context(), args, all, noTrunc)
				if err != nil {
					return err
				}
				if !noStream && isTerminal(a.out) {
					fmt.Fprint(a.out, "\033[H\033[J")
				}
				table := `{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}`
				if err := format.List(a.out, spec, table, statsHeadings, lines); err != nil {
					return err
				}
				if noStream {
					return nil
				}
			}
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Show all containers (default shows just running)")
	cmd.Flags().StringVar(&spec, "format", "", "Format output using a custom template")
	cmd.Flags().BoolVar(&noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "Do not truncate output")
	return cmd
}

// sample asks for the use of all containers at once; each answer covers the second before it.
func (a *app) sample(ctx context.Context, names []string, all, noTrunc bool) ([]statsLine, error) {
	engine, err := a.client()
	if err != nil {
		return nil, err
	}
	listed := len(names) == 0
	if listed {
		query := url.Values{}
		setTrue(query, "all", all)
		var found []container.Summary
		if err := engine.Get(ctx, "/containers/json", query, &found); err != nil {
			return nil, err
		}
		for _, c := range found {
			names = append(names, c.ID)
		}
		if len(names) == 0 { // nothing to ask paces the loop
			<-time.After(time.Second)
		}
	}
	samples := make(map[string]container.StatsResponse, len(names))
	results := concurrentlyInto(names, samples, func(name string) (s container.StatsResponse, err error) {
		err = engine.Get(ctx, "/containers/"+url.PathEscape(name)+"/stats", url.Values{"stream": {"0"}}, &s)
		return s, err
	})
	var lines []statsLine
	for _, name := range names {
		if err := results[name]; err != nil {
			if listed && errors.Is(err, errdefs.ErrNotFound) {
				continue // gone since it was listed
			}
			return nil, err
		}
		lines = append(lines, lineOf(name, samples[name], noTrunc))
	}
	return lines, nil
}

func lineOf(name string, s container.StatsResponse, noTrunc bool) statsLine {
	id := s.ID
	if !noTrunc {
		id = short(id)
	}
	used := usedMemory(s.MemoryStats)
	percent := 0.0
	if s.MemoryStats.Limit > 0 {
		percent = float64(used) / float64(s.MemoryStats.Limit) * 100
	}
	var received, sent, read, written uint64
	for _, n := range s.Networks {
		received += n.RxBytes
		sent += n.TxBytes
	}
	for _, entry := range s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(entry.Op) {
		case "read":
			read += entry.Value
		case "write":
			written += entry.Value
		}
	}
	size := func(n uint64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
	return statsLine{
		Container: name, ID: id, Name: strings.TrimPrefix(s.Name, "/"), CPUPerc: fmt.Sprintf("%.2f%%", cpuPercent(s)),
		MemUsage: units.BytesSize(float64(used)) + " / " + units.BytesSize(float64(s.MemoryStats.Limit)), MemPerc: fmt.Sprintf("%.2f%%", percent),
		NetIO: size(received) + " / " + size(sent), BlockIO: size(read) + " / " + size(written), PIDs: fmt.Sprint(s.PidsStats.Current),
	}
}

// usedMemory leaves out the page cache that the kernel would give up first.
func usedMemory(m container.MemoryStats) uint64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} { // cgroup v1, v2
		if cache, ok := m.Stats[key]; ok && cache < m.Usage {
			return m.Usage - cache
		}
	}
	return m.Usage
}

// cpuPercent is the share of one processor, so that two busy ones are 200 %.
func cpuPercent(s container.StatsResponse) float64 {
	own := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	system := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage)
	if own <= 0 || system <= 0 {
		return 0
	}
	return own / system * float64(s.CPUStats.OnlineCPUs) * 100
}
