package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseFlags(t *testing.T) {
	c, err := parse([]string{
		"-H", "unix:///a.sock", "--host=tcp://127.0.0.1:1", "--data-root", "/d", "--exec-root", "/e", "-D",
		"--default-address-pool", "base=10.0.0.0/16,size=24", "--log-opt", "max-size=1m", "--live-restore",
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"unix:///a.sock", "tcp://127.0.0.1:1"}, c.hosts); d != "" {
		t.Error(d)
	}
	if !c.debug || c.dataRoot != "/d" || len(c.pools) != 1 || c.pools[0].Size != 24 {
		t.Errorf("got %+v", c)
	}
}

func TestTheSocketFollowsTheExecRoot(t *testing.T) {
	c, err := parse([]string{"--exec-root", "/run/other"}, io.Discard)
	if err != nil || !cmp.Equal(c.hosts, []string{"unix:///run/other/davit.sock"}) {
		t.Errorf("got %v, %v", c.hosts, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"--no-such-flag"},
		{"argument"},
		{"--userns-remap", "somebody"},
		{"--storage-driver", "zfs"},
		{"--log-driver", "syslog"},
		{"--default-address-pool", "base=10.0.0.0/16,size=8"},
		{"--config-file", "/nonexistent/file"},
	} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}

func TestConfigurationFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "davitd.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"debug": true, "registry-mirrors": ["http://m1", "http://m2"], "insecure-registries": ["h:1"], "mtu": 1400,
		"log-opts": {"max-file": "7"}, "default-address-pools": [{"base": "10.1.0.0/16", "size": 24}]}`)
	c, err := parse([]string{"--config-file", path}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !c.debug || len(c.mirrors) != 2 || c.insecure[0] != "h:1" || c.mtu != 1400 || c.logOptions[0] != "max-file=7" || len(c.pools) != 1 {
		t.Errorf("got %+v", c)
	}
	write(`{"registry-mirrors": {"quay.io": ["http://q1", "http://q2"], "*": "http://all", "index.docker.io": ["https://hub"]}}`)
	if c, err = parse([]string{"--config-file", path}, io.Discard); err != nil {
		t.Fatal(err)
	}
	got := mirrors(append(c.mirrors, "https://docker/?a=b"))
	if fmt.Sprint(got) != "map[*:[http://all] docker.io:[https://hub https://docker/?a=b] quay.io:[http://q1 http://q2]]" {
		t.Errorf("mirrors by host: %v", got)
	}
	write(`{"debug": true}`)
	if _, err := parse([]string{"--config-file", path, "-D"}, io.Discard); err == nil || !strings.Contains(err.Error(), "both as a flag and in the configuration file: debug") {
		t.Errorf("given twice: got %v", err)
	}
	write(`{"nonsense": 1}`)
	if _, err := parse([]string{"--config-file", path}, io.Discard); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("unknown directive: got %v", err)
	}
}
