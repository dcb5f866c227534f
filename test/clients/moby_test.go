package clients

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

func connect(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// create makes a container that goes with the test.
func create(t *testing.T, c *client.Client, o client.ContainerCreateOptions) string {
	t.Helper()
	if o.Config == nil {
		o.Config = &container.Config{}
	}
	if o.Config.Image == "" {
		o.Config.Image = "busybox"
	}
	made, err := c.ContainerCreate(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := c.ContainerRemove(context.Background(), made.ID, client.ContainerRemoveOptions{Force: true})
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) { // gone, or going by itself
			t.Error(err)
		}
	})
	return made.ID
}

func run(t *testing.T, c *client.Client, o client.ContainerCreateOptions) string {
	t.Helper()
	id := create(t, c, o)
	begin(t, c, id)
	return id
}

func begin(t *testing.T, c *client.Client, id string) {
	t.Helper()
	if _, err := c.ContainerStart(t.Context(), id, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
}

func shell(script string) *container.Config {
	return &container.Config{Cmd: []string{"sh", "-c", script}, Labels: map[string]string{"l": "v"}}
}

// exit waits for the answer of a wait that was asked for before.
func exit(t *testing.T, w client.ContainerWaitResult) int64 {
	t.Helper()
	select {
	case r := <-w.Result:
		return r.StatusCode
	case err := <-w.Error:
		t.Fatal(err)
	case <-time.After(20 * time.Second):
		t.Fatal("the wait has no end")
	}
	return -1
}

func TestWaitConditions(t *testing.T) {
	c := connect(t)
	id := create(t, c, client.ContainerCreateOptions{Config: shell("exit 5")})
	if code := exit(t, c.ContainerWait(t.Context(), id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})); code != 0 {
		t.Errorf("one that never ran is not running, with status %d", code)
	}
	next := c.ContainerWait(t.Context(), id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	begin(t, c, id)
	if code := exit(t, next); code != 5 {
		t.Errorf("next exit %d", code)
	}
	if code := exit(t, c.ContainerWait(t.Context(), id, client.ContainerWaitOptions{})); code != 5 {
		t.Errorf("not running %d", code)
	}
	gone := create(t, c, client.ContainerCreateOptions{Config: shell("exit 6"), HostConfig: &container.HostConfig{AutoRemove: true}})
	removed := c.ContainerWait(t.Context(), gone, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	begin(t, c, gone)
	if code := exit(t, removed); code != 6 {
		t.Errorf("removed %d", code)
	}
	if _, err := c.ContainerInspect(t.Context(), gone, client.ContainerInspectOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("removed, and yet: %v", err)
	}
	unknown := c.ContainerWait(t.Context(), "nosuch", client.ContainerWaitOptions{})
	if err := <-unknown.Error; !errdefs.IsNotFound(err) {
		t.Errorf("wait for nothing: %v", err)
	}
}

func TestEvents(t *testing.T) {
	c := connect(t)
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	stream := c.Events(ctx, client.EventsListOptions{Filters: make(client.Filters).Add("label", "l=v").Add("type", "container")})
	id := create(t, c, client.ContainerCreateOptions{Config: shell("exit 7"), Name: "told"})
	w := c.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	begin(t, c, id)
	exit(t, w)
	if _, err := c.ContainerRemove(ctx, id, client.ContainerRemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	var actions []string
	var last int64
	for {
		var m events.Message
		select {
		case m = <-stream.Messages:
		case err := <-stream.Err:
			t.Fatal(err)
		}
		actions = append(actions, string(m.Action))
		if m.Actor.ID != id || m.Actor.Attributes["name"] != "told" || m.Actor.Attributes["image"] != "busybox" || m.Actor.Attributes["l"] != "v" || m.Scope != "local" {
			t.Errorf("%+v", m)
		}
		if m.Action == events.ActionDie && m.Actor.Attributes["exitCode"] != "7" {
			t.Errorf("died with %v", m.Actor.Attributes)
		}
		if m.TimeNano < last {
			t.Error("events go back in time")
		}
		if last = m.TimeNano; m.Action == events.ActionDestroy {
			break
		}
	}
	if want := []string{"create", "start", "die", "destroy"}; !slices.Equal(actions, want) {
		t.Errorf("events %v, want %v", actions, want)
	}
}

func TestAttachWithLogs(t *testing.T) {
	c := connect(t)
	config := shell("echo early; read line; echo got $line; echo bad >&2")
	config.OpenStdin = true
	id := run(t, c, client.ContainerCreateOptions{Config: config})
	within, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for logged := ""; !strings.Contains(logged, "early"); { // what comes between the log and the stream is in neither
		time.Sleep(5 * time.Millisecond)
		logs, err := c.ContainerLogs(within, id, client.ContainerLogsOptions{ShowStdout: true})
		if err != nil {
			t.Fatal(err)
		}
		content, _ := io.ReadAll(logs)
		logs.Close()
		logged = string(content)
	}
	a, err := c.ContainerAttach(t.Context(), id, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true, Logs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Conn.Write([]byte("word\n")); err != nil {
		t.Fatal(err)
	}
	var out, errors bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &errors, a.Reader); err != nil {
		t.Fatal(err)
	}
	if out.String() != "early\ngot word\n" || errors.String() != "bad\n" {
		t.Errorf("attached: %q, %q", out.String(), errors.String())
	}
}

func TestExec(t *testing.T) {
	c := connect(t)
	id := run(t, c, client.ContainerCreateOptions{Config: shell("exec sleep 100")})
	made, err := c.ExecCreate(t.Context(), id, client.ExecCreateOptions{
		Cmd: []string{"sh", "-c", "cat; echo $A; pwd; id -u; exit 9"}, AttachStdin: true, AttachStdout: true, AttachStderr: true,
		Env: []string{"A=b"}, WorkingDir: "/tmp", User: "7",
	})
	if err != nil {
		t.Fatal(err)
	}
	before, err := c.ExecInspect(t.Context(), made.ID, client.ExecInspectOptions{})
	if err != nil || before.Running || before.PID != 0 || before.ContainerID != id {
		t.Errorf("before: %+v, %v", before, err)
	}
	a, err := c.ExecAttach(t.Context(), made.ID, client.ExecAttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Conn.Write([]byte("in ")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Reader.Peek(8 + len("in ")); err != nil { // a frame's header and the echo: it runs
		t.Fatal(err)
	}
	during, err := c.ExecInspect(t.Context(), made.ID, client.ExecInspectOptions{})
	if err != nil || !during.Running || during.PID == 0 {
		t.Errorf("during: %+v, %v", during, err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, io.Discard, a.Reader); err != nil || out.String() != "in b\n/tmp\n7\n" {
		t.Errorf("exec: %q, %v", out.String(), err)
	}
	after, err := c.ExecInspect(t.Context(), made.ID, client.ExecInspectOptions{})
	if err != nil || after.Running || after.ExitCode != 9 {
		t.Errorf("after: %+v, %v", after, err)
	}
	if _, err := c.ExecStart(t.Context(), made.ID, client.ExecStartOptions{Detach: true}); !errdefs.IsConflict(err) {
		t.Errorf("a second start: %v", err)
	}
	if _, err := c.ExecInspect(t.Context(), "nosuch", client.ExecInspectOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("inspect nothing: %v", err)
	}
}

func TestStats(t *testing.T) {
	c := connect(t)
	id := run(t, c, client.ContainerCreateOptions{Config: shell("while :; do :; done"), HostConfig: &container.HostConfig{Resources: container.Resources{NanoCPUs: 2e8, Memory: 64 << 20}}})
	s, err := c.ContainerStats(t.Context(), id, client.ContainerStatsOptions{Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Body.Close()
	answers := json.NewDecoder(s.Body)
	var first, second container.StatsResponse
	if err := answers.Decode(&first); err != nil {
		t.Fatal(err)
	}
	if err := answers.Decode(&second); err != nil {
		t.Fatal(err)
	}
	if second.CPUStats.CPUUsage.TotalUsage <= first.CPUStats.CPUUsage.TotalUsage || second.PreCPUStats.CPUUsage.TotalUsage != first.CPUStats.CPUUsage.TotalUsage {
		t.Errorf("cpu %+v after %+v", second.CPUStats, first.CPUStats)
	}
	if second.MemoryStats.Limit != 64<<20 || second.PidsStats.Current == 0 || second.ID != id || len(second.Networks) == 0 || second.CPUStats.SystemUsage == 0 {
		t.Errorf("%+v", second)
	}
}

func TestArchives(t *testing.T) {
	c := connect(t)
	id := create(t, c, client.ContainerCreateOptions{})
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	if err := w.WriteHeader(&tar.Header{Name: "dir/file", Mode: 0o640, Size: 4, Uid: 3, Gid: 4}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("data")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CopyToContainer(t.Context(), id, client.CopyToContainerOptions{DestinationPath: "/tmp", Content: &content}); err != nil {
		t.Fatal(err)
	}
	s, err := c.ContainerStatPath(t.Context(), id, client.ContainerStatPathOptions{Path: "/tmp/dir/file"})
	if err != nil || s.Stat.Name != "file" || s.Stat.Size != 4 || s.Stat.Mode.Perm() != 0o640 {
		t.Errorf("stat %+v, %v", s, err)
	}
	r, err := c.CopyFromContainer(t.Context(), id, client.CopyFromContainerOptions{SourcePath: "/tmp/dir"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Content.Close()
	var names []string
	for files := tar.NewReader(r.Content); ; {
		h, err := files.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if !slices.Equal(names, []string{"dir/", "dir/file"}) {
		t.Errorf("archive of %v", names)
	}
	if _, err := c.ContainerStatPath(t.Context(), id, client.ContainerStatPathOptions{Path: "/nosuch"}); !errdefs.IsNotFound(err) {
		t.Errorf("stat of nothing: %v", err)
	}
	if _, err := c.CopyToContainer(t.Context(), id, client.CopyToContainerOptions{DestinationPath: "/nosuch", Content: &bytes.Buffer{}}); !errdefs.IsNotFound(err) {
		t.Errorf("copy into nothing: %v", err)
	}
	if _, err := c.CopyToContainer(t.Context(), id, client.CopyToContainerOptions{DestinationPath: "/etc/passwd", Content: &bytes.Buffer{}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("copy into a file: %v", err)
	}
}

func TestBuildOptions(t *testing.T) {
	c := connect(t)
	var context bytes.Buffer
	w := tar.NewWriter(&context)
	file := "FROM busybox AS one\nARG A=x\nRUN echo $A >/a; grep -q 1.2.3.4 /etc/hosts; df -k /dev/shm | grep -q 2048\nFROM one AS two\nRUN false\n"
	if err := w.WriteHeader(&tar.Header{Name: "sub/File", Mode: 0o644, Size: int64(len(file))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, file); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	a := "given"
	built, err := c.ImageBuild(t.Context(), bytes.NewReader(context.Bytes()), client.ImageBuildOptions{
		Tags: []string{"optioned:1", "optioned:2"}, Dockerfile: "sub/File", Target: "one", BuildArgs: map[string]*string{"A": &a},
		Labels: map[string]string{"k": "v"}, NetworkMode: "none", NoCache: true, Remove: true, ForceRemove: true,
		ExtraHosts: []string{"h:1.2.3.4"}, ShmSize: 2 << 20, CacheFrom: []string{"nosuch:1"}, Memory: 128 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	text := read(t, built.Body, nil)
	built.Body.Close()
	if !strings.Contains(text, "Successfully tagged optioned:2") {
		t.Fatalf("build: %s", text)
	}
	t.Cleanup(func() {
		for _, tag := range []string{"optioned:1", "optioned:2"} {
			if _, err := c.ImageRemove(t.Context(), tag, client.ImageRemoveOptions{Force: true}); err != nil && t.Context().Err() == nil {
				t.Error(err)
			}
		}
	})
	image, err := c.ImageInspect(t.Context(), "optioned:1")
	if err != nil || !maps.Equal(image.Config.Labels, map[string]string{"k": "v"}) {
		t.Errorf("%+v, %v", image.Config, err)
	}
	failed, err := c.ImageBuild(t.Context(), bytes.NewReader(context.Bytes()), client.ImageBuildOptions{Dockerfile: "sub/File"})
	if err != nil {
		t.Fatal(err)
	}
	defer failed.Body.Close()
	if text := read(t, failed.Body, nil); !strings.Contains(text, `"errorDetail":{"code":1,`) || !strings.Contains(text, "returned a non-zero code: 1") {
		t.Errorf("failed build: %s", text)
	}
}

func TestErrors(t *testing.T) {
	c, ctx := connect(t), t.Context()
	_, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{Config: &container.Config{Image: "nosuch"}})
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "No such image: nosuch:latest") {
		t.Errorf("no image: %v", err)
	}
	id := run(t, c, client.ContainerCreateOptions{Config: shell("exec sleep 100"), Name: "taken"})
	for name, e := range map[string]struct {
		is  func(error) bool
		err error
	}{
		"name":         {errdefs.IsConflict, second(c.ContainerCreate(ctx, client.ContainerCreateOptions{Image: "busybox", Name: "taken"}))},
		"bad name":     {errdefs.IsInvalidArgument, second(c.ContainerCreate(ctx, client.ContainerCreateOptions{Image: "busybox", Name: "a b"}))},
		"no network":   {errdefs.IsNotFound, second(c.NetworkInspect(ctx, "nosuch", client.NetworkInspectOptions{}))},
		"no volume":    {errdefs.IsNotFound, second(c.VolumeInspect(ctx, "nosuch", client.VolumeInspectOptions{}))},
		"running":      {errdefs.IsConflict, second(c.ContainerRemove(ctx, id, client.ContainerRemoveOptions{}))},
		"filter":       {errdefs.IsInvalidArgument, second(c.ContainerList(ctx, client.ContainerListOptions{Filters: make(client.Filters).Add("bogus", "1")}))},
		"prune":        {errdefs.IsInvalidArgument, second(c.ContainerPrune(ctx, client.ContainerPruneOptions{Filters: make(client.Filters).Add("until", "bogus")}))},
		"image in use": {errdefs.IsConflict, second(c.ImageRemove(ctx, imageID(t, c), client.ImageRemoveOptions{}))},
		"not paused":   {errdefs.IsInternal, second(c.ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{}))},
		"host":         {errdefs.IsPermissionDenied, second(c.NetworkConnect(ctx, "host", client.NetworkConnectOptions{Container: id}))},
		"signal":       {errdefs.IsInvalidArgument, second(c.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "BOGUS"}))},
		"swarm":        {errdefs.IsUnavailable, second(c.NodeList(ctx, client.NodeListOptions{}))},
	} {
		if !e.is(e.err) {
			t.Errorf("%s: %T %v", name, e.err, e.err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func imageID(t *testing.T, c *client.Client) string {
	t.Helper()
	i, err := c.ImageInspect(t.Context(), "busybox")
	if err != nil {
		t.Fatal(err)
	}
	return i.ID
}
