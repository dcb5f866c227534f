package network_test

import (
	"net/netip"
	"strings"
	"testing"

	"davit/network"
)

func TestHostsFile(t *testing.T) {
	e := network.Endpoint{IPv4: netip.MustParsePrefix("172.17.0.2/16"), IPv6: netip.MustParsePrefix("fd00::2/64")}
	extra := []network.Host{{Addr: netip.MustParseAddr("10.0.0.1"), Names: []string{"db", "db.example"}}}
	got := string(network.HostsFile("web", "example.com", []network.Endpoint{e}, extra))
	want := `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
10.0.0.1	db db.example
172.17.0.2	web.example.com web
fd00::2	web.example.com web
`
	if got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestHostsFileOfLongName(t *testing.T) {
	e := network.Endpoint{IPv4: netip.MustParsePrefix("172.17.0.2/16")}
	for hostname, want := range map[string]string{"web": "172.17.0.2\tweb\n", "web.example.com": "172.17.0.2\tweb.example.com web\n"} {
		if got := string(network.HostsFile(hostname, "", []network.Endpoint{e}, nil)); !strings.HasSuffix(got, "\n"+want) {
			t.Errorf("%s: got\n%s", hostname, got)
		}
	}
}

func TestResolvConf(t *testing.T) {
	host := []byte("# made by somebody\nnameserver 127.0.0.53\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\nsearch a.example b.example\noptions edns0 trust-ad\n")
	for name, c := range map[string]struct {
		request network.ResolvRequest
		want    string
	}{
		"default network": {network.ResolvRequest{Host: host}, "nameserver 10.0.0.53\nsearch a.example b.example\noptions edns0 trust-ad\n"},
		"only loopback":   {network.ResolvRequest{Host: []byte("nameserver 127.0.0.53\n")}, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"},
		"host network":    {network.ResolvRequest{Host: []byte("nameserver 127.0.0.53\n"), HostNetwork: true}, "nameserver 127.0.0.53\n"},
		"named network":   {network.ResolvRequest{Host: host, NameService: true, Servers: []netip.Addr{netip.MustParseAddr("1.1.1.1")}}, "nameserver 127.0.0.11\nsearch a.example b.example\noptions edns0 trust-ad ndots:0\n"},
		"own ndots":       {network.ResolvRequest{Host: host, NameService: true, Options: []string{"ndots:2"}, Search: []string{"."}}, "nameserver 127.0.0.11\noptions ndots:2\n"},
		"own servers":     {network.ResolvRequest{Host: host, Servers: []netip.Addr{netip.MustParseAddr("1.1.1.1")}, Search: []string{"c.example"}, Options: []string{}}, "nameserver 1.1.1.1\nsearch c.example\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(network.ResolvConf(c.request)); got != c.want {
				t.Errorf("got\n%s", got)
			}
		})
	}
}
