package network_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"davit/network"
)

// What a container's start and end wait for, beside others that run and ports that are published.
func BenchmarkLife(b *testing.B) {
	for _, c := range []struct {
		running, published int
		net                string
	}{{0, 0, "bridge"}, {100, 0, "bridge"}, {0, 1000, "bridge"}, {0, 0, "app"}} {
		for _, port := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/running=%d/published=%d/port=%v", c.net, c.running, c.published, port), func(b *testing.B) {
				w := newWorld(b)
				w.create("app", "10.1.0.0/16")
				for i := range c.running {
					w.run(fmt.Sprint("running", i), c.net)
				}
				if c.published > 0 {
					w.run("published", c.net, manyPorts(c.published)...)
				}
				life(b, w, c.net, port)
			})
		}
	}
}

func manyPorts(n int) []network.PortRequest {
	ports := make([]network.PortRequest, n)
	for i := range ports {
		ports[i] = tcp(uint16(20001+i), 80)
	}
	return ports
}

// life measures one container after another: the medians of Allocate, Attach and Detach are reported
// beside the mean of their sum, in microseconds.
func life(b *testing.B, w *world, net string, port bool) {
	ctx := context.Background()
	var ports []network.PortRequest
	if port {
		ports = []network.PortRequest{tcp(8080, 80)}
	}
	var allocate, attach, detach []time.Duration
	for b.Loop() {
		b.StopTimer()
		box := w.container("c")
		b.StartTimer()
		t0 := time.Now()
		e, err := w.c.Allocate(ctx, network.EndpointRequest{NetworkID: net, ContainerID: box.ContainerID, ContainerName: "c", Ports: ports})
		w.check(err)
		t1 := time.Now()
		w.check(w.c.Attach(ctx, box.Sandbox, []network.Endpoint{e}))
		t2 := time.Now()
		w.check(w.c.Detach(ctx, box.ContainerID))
		allocate, attach, detach = append(allocate, t1.Sub(t0)), append(attach, t2.Sub(t1)), append(detach, time.Since(t2))
		b.StopTimer()
		box.ns.Close()
		b.StartTimer()
	}
	for name, times := range map[string][]time.Duration{"allocate": allocate, "attach": attach, "detach": detach} {
		slices.Sort(times)
		b.ReportMetric(float64(times[len(times)/2].Microseconds()), name+"-us")
	}
}
