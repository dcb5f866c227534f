package client

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

func TestSparse(t *testing.T) {
	seconds := 0
	on := true
	want := container.CreateRequest{
		Config: &container.Config{
			Image: "app", Env: []string{"A=\"1\""}, StopTimeout: &seconds, Volumes: map[string]struct{}{"/data": {}},
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}}, Cmd: []string{},
		},
		HostConfig: &container.HostConfig{
			AutoRemove: true, Resources: container.Resources{Memory: 1 << 20, OomKillDisable: &on},
			Mounts: []mount.Mount{{Type: mount.TypeTmpfs, Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 5}}},
		},
	}
	text, err := json.Marshal(Sparse{want})
	if err != nil {
		t.Fatal(err)
	}
	var got container.CreateRequest
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s decodes to\n%+v %+v, want\n%+v %+v", text, got.Config, got.HostConfig, want.Config, want.HostConfig)
	}
	if empty, err := json.Marshal(Sparse{&container.CreateRequest{}}); err != nil || string(empty) != "{}" {
		t.Errorf("empty: %s, %v", empty, err)
	}
}
