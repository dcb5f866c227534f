package container

import (
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
)

func TestIsolate(t *testing.T) {
	private := Peer{ID: strings.Repeat("a", 64), UserNS: UserNamespace{Mode: UserPrivate, Base: 1 << 20, Size: 1 << 16}}
	joined := Peer{ID: strings.Repeat("b", 64), UserNS: UserNamespace{Mode: UserShared, Base: 1 << 20, Size: 1 << 16, Joined: private.ID}}
	onHost := Peer{ID: strings.Repeat("c", 64), UserNS: UserNamespace{Mode: UserHost}}
	for name, c := range map[string]struct {
		host   container.HostConfig
		peers  []Peer
		engine UserMode
		want   UserMode
		reason string // a part of it
	}{
		"default":               {want: UserPrivate},
		"asked for":             {host: container.HostConfig{UsernsMode: "host"}, want: UserHost, reason: "--userns=host"},
		"privileged":            {host: container.HostConfig{Privileged: true}, want: UserHost, reason: "--privileged"},
		"pid":                   {host: container.HostConfig{PidMode: "host"}, want: UserHost, reason: "--pid=host"},
		"net":                   {host: container.HostConfig{NetworkMode: "host"}, want: UserHost, reason: "1024"},
		"net, private asked":    {host: container.HostConfig{NetworkMode: "host", UsernsMode: "private"}, want: UserPrivate},
		"host-wide capability":  {host: container.HostConfig{CapAdd: []string{"sys_time"}}, want: UserHost, reason: "sys_time"},
		"namespaced capability": {host: container.HostConfig{CapAdd: []string{"NET_ADMIN"}}, want: UserPrivate},
		"engine without":        {engine: UserHost, want: UserHost, reason: "idmapped"},
		"joins a private one":   {peers: []Peer{private}, want: UserShared},
		"joins a joined one":    {peers: []Peer{joined}, want: UserShared},
		"joins one on the host": {peers: []Peer{onHost}, want: UserHost, reason: onHost.ID[:12]},
	} {
		got := Isolate(&c.host, c.peers, c.engine)
		if got.Mode != c.want || !strings.Contains(got.Reason, c.reason) || (got.Mode == UserHost) != (got.Reason != "") {
			t.Errorf("%s: got %+v, want %s because of %q", name, got, c.want, c.reason)
		}
		if got.Mode == UserShared && (got.Joined != private.ID || got.Base != 1<<20) {
			t.Errorf("%s: got %+v, want the namespace of %s", name, got, private.ID)
		}
	}
}
