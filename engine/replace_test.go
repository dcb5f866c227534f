package engine

import (
	"net"
	"os"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"davit/engine/container"
)

func TestSocketsOfThisProcess(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := uint16(listener.Addr().(*net.TCPAddr).Port)
	look := func() sockets {
		s, err := readSockets(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := look(); !s.listening[port] || s.open[port] != 0 {
		t.Errorf("listening %t, open %d; want only listening", s.listening[port], s.open[port])
	}
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// Nobody has accepted it yet, and it counts all the same.
	if s := look(); s.open[port] != 1 || s.served() < 1 {
		t.Errorf("open %d, served %d; want one", s.open[port], s.served())
	}
}

// A container on trial is checked sooner, and no failure of such a check counts.
func TestEarlyChecks(t *testing.T) {
	h := &wire.HealthConfig{Test: []string{"CMD", "x"}, Interval: 10 * time.Second, Retries: 1}
	r := record("a", "web.next", false)
	r.Config = &wire.Config{Healthcheck: h}
	trial := r.Clone()
	trial.Succeeds = &container.Succession{Old: "b"}
	moved := trial.WithSuccession(func(s *container.Succession) { s.Moved = true })
	begun := time.Now()
	for name, c := range map[string]struct {
		r     *container.Record
		after time.Duration
		want  time.Duration
	}{
		"on trial":           {trial, time.Second, tryInterval},
		"first check is due": {trial, 10 * time.Second, 10 * time.Second},
		"has taken over":     {moved, time.Second, 10 * time.Second},
		"as ever":            {r, time.Second, 10 * time.Second},
	} {
		if got := interval(h, c.r, begun, begun.Add(c.after)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	failure := &wire.HealthcheckResult{Start: begun.Add(time.Second), ExitCode: 1}
	if got := assess(initialHealth(trial), h, failure, early(h, trial, begun, failure.Start)); got.Status != wire.Starting {
		t.Errorf("an early failure makes it %s", got.Status)
	}
	if got := assess(initialHealth(trial), h, failure, early(h, trial, begun, begun.Add(11*time.Second))); got.Status != wire.Unhealthy {
		t.Errorf("a failure that is due makes it %s", got.Status)
	}
}

func TestAnonymousVolumesAreHandedOn(t *testing.T) {
	old := []container.Mount{
		{Type: mount.TypeVolume, Destination: "/data", Name: "0123", Source: "/v/0123", Anonymous: true},
		{Type: mount.TypeBind, Destination: "/etc/app", Source: "/srv"},
	}
	mounts := []container.Mount{
		{Type: mount.TypeVolume, Destination: "/data", Anonymous: true},
		{Type: mount.TypeVolume, Destination: "/new", Anonymous: true},
		{Type: mount.TypeVolume, Destination: "/named", Name: "stock"},
	}
	inheritVolumes(mounts, old)
	for i, want := range []string{"0123", "", "stock"} {
		if mounts[i].Name != want || mounts[i].Source != "" {
			t.Errorf("%s has volume %q from %q, want %q", mounts[i].Destination, mounts[i].Name, mounts[i].Source, want)
		}
	}
}

// Of two records in files the successor's may have been written alone.
func TestSuccessorsRecordNamesBoth(t *testing.T) {
	old, next := record("a", "web", true), record("b", "web", true)
	next.Succeeds = &container.Succession{Old: "a", Name: "web", OldName: "web.old", Moved: true}
	renameSucceeded([]*container.Record{old, next})
	if old.Name != "web.old" || next.Name != "web" {
		t.Errorf("names %s and %s", old.Name, next.Name)
	}
}
