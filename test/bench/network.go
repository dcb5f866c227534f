package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// flow is one engine's way for a TCP stream: a client, and a server that runs in a container's network.
type flow struct {
	engine       engine
	mode         string
	client       []string // what comes before iperf3, to run it where the client is
	address      string
	port         string
	server       *exec.Cmd
	containers   []string
	rates, costs []float64 // of each round: Gbit/s, and CPU seconds of both ends for a GB
}

const networkRounds = 9

// network is TCP between the host and containers, by iperf3 in the containers' networks, each end bound to
// a CPU of its own. One second of each engine's follows one of the other's, so that what else the machine
// does hits all alike; the median counts. On a busy machine the rate says more about who gets the CPUs; what
// a GB costs of them, proxies included, is what an engine answers for.
func (b *bench) network() error {
	if missing("iperf3") {
		return nil
	}
	fmt.Printf("\nTCP throughput (iperf3, %d interleaved seconds each)\n  budget: bridge >= docker, host mode = host\n", networkRounds)
	fmt.Printf("  %-10s %-24s %17s %8s %8s %16s\n", "", "", "median", "min", "max", "CPU s for 1 GB")
	engines := b.bridging()
	for _, mode := range []string{"host to container", "host, 127.0.0.1 and -p", "container to container", "host mode"} {
		measured, err := flowsOf(mode, engines)
		if err != nil {
			return err
		}
		engines = measured
	}
	return nil
}

// flowsOf measures one mode with the engines, the first of which is davit, and returns those that can do it.
func flowsOf(mode string, engines []engine) (able []engine, err error) {
	var flows []*flow
	defer func() {
		for _, f := range flows {
			err = errors.Join(err, f.end())
		}
	}()
	for i, e := range engines {
		f := &flow{engine: e, mode: mode, address: "127.0.0.1", port: strconv.Itoa(5301 + i)}
		if err := f.start(); err != nil && i == 0 {
			return nil, errors.Join(err, f.end())
		} else if err != nil {
			leaveOut(e.name, err)
			if err := f.end(); err != nil {
				return nil, err
			}
			continue
		}
		flows, able = append(flows, f), append(able, e)
	}
	for range networkRounds {
		for _, f := range flows {
			if err := f.measure(); err != nil {
				return nil, fmt.Errorf("%s, %s: %w", f.engine.name, mode, err)
			}
		}
	}
	for _, f := range flows {
		slices.Sort(f.rates)
		slices.Sort(f.costs)
		const half = networkRounds / 2
		fmt.Printf("  %-10s %-24s %10.1f Gbit/s %8.1f %8.1f %16.3f\n", f.engine.name, mode, f.rates[half], f.rates[0], f.rates[networkRounds-1], f.costs[half])
	}
	return able, nil
}

func (f *flow) start() error {
	var args []string
	switch f.mode {
	case "host mode":
		args = []string{"--net", "host"}
	case "host, 127.0.0.1 and -p":
		args = []string{"-p", f.port + ":" + f.port}
	}
	pid, err := f.run(args)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		if f.address, err = command(nil, "nsenter", "-t", pid, "-n", "sh", "-c", "ip -4 -o addr show eth0 | sed 's/.*inet //; s/[/].*//'"); err != nil {
			return err
		}
	}
	if f.mode == "container to container" {
		neighbour, err := f.run(nil)
		if err != nil {
			return err
		}
		f.client = []string{"nsenter", "-t", neighbour, "-n"}
	}
	f.server = exec.Command("taskset", "-c", "1", "nsenter", "-t", pid, "-n", "iperf3", "-s", "-p", f.port)
	if err := f.server.Start(); err != nil {
		return err
	}
	for range 100 {
		if err = f.measure(); err == nil {
			f.rates, f.costs = nil, nil
			return nil
		}
		<-time.After(50 * time.Millisecond)
	}
	return err
}

// run starts a container and returns its pid.
func (f *flow) run(args []string) (pid string, err error) {
	id, err := f.engine.do(append(append([]string{"run", "-d"}, args...), "busybox", "sleep", "1000")...)
	if err != nil {
		return "", err
	}
	f.containers = append(f.containers, id)
	return f.engine.do("inspect", "-f", "{{.State.Pid}}", id)
}

// measure adds a second of TCP. A proxy's CPU time counts as the ends' does.
func (f *flow) measure() error {
	before := proxyTime(f.port)
	line := append(append([]string{"-c", "0"}, f.client...), "iperf3", "-c", f.address, "-p", f.port, "-t", "1", "-J")
	out, err := command(nil, "taskset", line...)
	if err != nil {
		return err
	}
	var result struct {
		End struct {
			Received struct {
				Bytes   float64
				Seconds float64
			} `json:"sum_received"`
			CPU struct {
				Client float64 `json:"host_total"` // per cent of a CPU
				Server float64 `json:"remote_total"`
			} `json:"cpu_utilization_percent"`
		}
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || result.End.Received.Bytes == 0 {
		return errors.Join(errors.New("iperf3 gives no result"), err)
	}
	r := result.End.Received
	f.rates = append(f.rates, r.Bytes*8/r.Seconds/1e9)
	ends := (result.End.CPU.Client + result.End.CPU.Server) / 100 * r.Seconds
	f.costs = append(f.costs, (ends+proxyTime(f.port)-before)/(r.Bytes/1e9))
	return nil
}

// proxyTime is the CPU time in seconds that proxies of a port have used.
func proxyTime(port string) (seconds float64) {
	for _, pid := range processes([]string{"-host-port " + port, "-host-port\x00" + port}) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // behind the name: proc_pid_stat(5), from field 3
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			continue
		}
		for _, ticks := range fields[11:13] { // utime, stime, in 1/100 s
			n, _ := strconv.ParseFloat(ticks, 64)
			seconds += n / 100
		}
	}
	return seconds
}

// end removes what start made.
func (f *flow) end() error {
	var errs []error
	for _, id := range f.containers {
		_, err := f.engine.do("rm", "-f", id)
		errs = append(errs, err)
	}
	if f.server != nil && f.server.Process != nil {
		errs = append(errs, f.server.Process.Kill())
		_ = f.server.Wait() // killed: its status says so
	}
	return errors.Join(errs...)
}
