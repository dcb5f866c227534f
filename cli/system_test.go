package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// TestUsageOfOldEngines computes the totals that engines before API 1.52 leave to their clients.
func TestUsageOfOldEngines(t *testing.T) {
	u := usage{
		LayersSize: 100,
		Images:     []image.Summary{{Containers: 1, Size: 60, SharedSize: 20}, {Size: 50, SharedSize: 20}},
		Containers: []container.Summary{{State: container.StateRunning, SizeRw: 5}, {State: container.StateExited, SizeRw: 7}},
		Volumes:    []volume.Volume{{UsageData: &volume.UsageData{RefCount: 1, Size: 8}}, {UsageData: &volume.UsageData{Size: 3}}, {}},
		BuildCache: []build.CacheRecord{{Size: 4, Shared: true}, {Size: 6, InUse: true}, {Size: 9}},
	}
	u.fill()
	want := []usageRow{
		{"1", "60B (60%)", "100B", "2", "Images"},
		{"1", "7B (58%)", "12B", "2", "Containers"},
		{"1", "3B (27%)", "11B", "3", "Local Volumes"},
		{"1", "9B", "15B", "3", "Build Cache"},
	}
	for i, row := range u.rows() {
		if row != want[i] {
			t.Errorf("%+v, want %+v", row, want[i])
		}
	}
	told := usage{DiskUsage: system.DiskUsage{ImageUsage: &image.DiskUsage{TotalCount: 9}}}
	told.fill()
	if told.ImageUsage.TotalCount != 9 {
		t.Error("totals that the engine told were computed anew")
	}
}

func TestPrintEvent(t *testing.T) {
	raw := json.RawMessage(`{"Type":"container","Action":"die","Actor":{"ID":"abc","Attributes":{"name":"x","exitCode":"1"}},"time":1,"timeNano":1000000001}`)
	for spec, want := range map[string]string{
		"":                      "container die abc (exitCode=1, name=x)\n",
		"{{.Type}} {{.Action}}": "container die\n",
		"{{.Actor.ID}}":         "abc\n",
	} {
		var b bytes.Buffer
		if err := printEvent(&b, spec, raw); err != nil || !strings.HasSuffix(b.String(), want) {
			t.Errorf("%q: %q, %v; want %q", spec, b.String(), err, want)
		}
	}
	if err := printEvent(io.Discard, "", json.RawMessage(`[]`)); err == nil {
		t.Error("a list is no event")
	}
}

func TestPruneWarning(t *testing.T) {
	all := (&pruneFlags{all: true, volumes: true, filters: []string{"until=1h"}}).warning()
	for _, want := range []string{"all images without", "all build cache", "anonymous volumes", "- until=1h"} {
		if !strings.Contains(all, want) {
			t.Errorf("the warning does not mention %q:\n%s", want, all)
		}
	}
	if few := (&pruneFlags{}).warning(); strings.Contains(few, "volumes") || !strings.Contains(few, "dangling images") {
		t.Errorf("without flags:\n%s", few)
	}
}

// TestJoin sends input to its end and still gets what the engine says afterwards.
func TestJoin(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			served <- err
			return
		}
		defer conn.Close()
		text, err := io.ReadAll(conn)
		if err == nil {
			_, err = conn.Write(append([]byte("got "), text...))
		}
		served <- err
	}()
	conn, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := join(t.Context(), conn, strings.NewReader("hello"), &out); err != nil || out.String() != "got hello" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestSecurityOptions(t *testing.T) {
	var b bytes.Buffer
	printSecurity(&b, []string{"name=seccomp,profile=builtin", "name=userns"})
	if want := " Security Options:\n  seccomp\n   Profile: builtin\n  userns\n"; b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}
