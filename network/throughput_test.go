package network_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// BenchmarkThroughput reports what one TCP stream carries, with iperf3: from the host into a container
// over the bridge, by a published port from outside, and as the measure of it over the host's loopback.
func BenchmarkThroughput(b *testing.B) {
	w := newWorld(b)
	w.command(nil, "ip", "link", "set", "lo", "up")
	web := w.run("web", "bridge", tcp(5201, 5201))
	for name, path := range map[string]struct {
		server, client *os.File
		address        string
	}{
		"bridge":    {web.ns, nil, web.addr()},
		"published": {web.ns, w.outside, hostAddr},
		"loopback":  {nil, nil, "127.0.0.2"},
	} {
		b.Run(name, func(b *testing.B) {
			server := exec.Command("iperf3", "-s", "-1", "-p", map[bool]string{true: "5299", false: "5201"}[path.server == nil])
			w.check(inside(path.server, server.Start))
			defer func() { server.Process.Kill(); server.Wait() }()
			var bits float64
			for b.Loop() {
				bits = w.iperf(path.client, path.address, server.Args[4])
			}
			b.ReportMetric(bits/1e9, "Gbit/s")
		})
	}
}

// iperf runs a client for a second, again until the server has opened its port.
func (w *world) iperf(ns *os.File, address, port string) float64 {
	w.Helper()
	for range 50 {
		var out []byte
		w.check(inside(ns, func() error {
			out, _ = exec.Command("iperf3", "-c", address, "-p", port, "-t", "1", "-J").Output()
			return nil
		}))
		var result struct {
			End struct {
				Received struct {
					Bits float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			} `json:"end"`
		}
		if json.Unmarshal(out, &result) == nil && result.End.Received.Bits > 0 {
			return result.End.Received.Bits
		}
	}
	w.Fatal("iperf3 gives no result")
	return 0
}
