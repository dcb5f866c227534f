package cli

import (
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
)

func TestNetworkRequest(t *testing.T) {
	f := &networkFlags{
		subnets: []string{"10.1.0.0/24", "fd00::/64"}, ranges: []string{"10.1.0.128/25"},
		gateways: []string{"fd00::1", "10.1.0.1"}, aux: []string{"router=10.1.0.2"}, opts: []string{"a=b=c"},
	}
	r, err := f.request("n")
	if err != nil {
		t.Fatal(err)
	}
	v4, v6 := r.IPAM.Config[0], r.IPAM.Config[1]
	if v4.IPRange.String() != "10.1.0.128/25" || v4.Gateway.String() != "10.1.0.1" || v4.AuxAddress["router"].String() != "10.1.0.2" ||
		v6.Gateway.String() != "fd00::1" || r.Options["a"] != "b=c" {
		t.Errorf("%+v", r.IPAM)
	}
	for what, bad := range map[string]networkFlags{
		"no matching subnet for gateway 10.2.0.1":                    {subnets: []string{"10.1.0.0/24"}, gateways: []string{"10.2.0.1"}},
		"no matching subnet for range 10.2.0.0/25":                   {subnets: []string{"10.1.0.0/24"}, ranges: []string{"10.2.0.0/25"}},
		"multiple overlapping subnet configuration is not supported": {subnets: []string{"10.1.0.0/24", "10.1.0.0/16"}},
	} {
		if _, err := bad.request("n"); err == nil || err.Error() != what {
			t.Errorf("%v, want %s", err, what)
		}
	}
}

func TestRowsAreSorted(t *testing.T) {
	volumes := volumeRows([]volume.Volume{{Name: "b"}, {Name: "a", Labels: map[string]string{"y": "2", "x": "1"}}})
	if volumes[0].Name != "a" || volumes[0].Labels != "x=1,y=2" || volumes[0].Label("y") != "2" || volumes[0].Size != "N/A" {
		t.Errorf("%+v", volumes)
	}
	networks := networkRows([]network.Summary{{Network: network.Network{Name: "n", ID: strings.Repeat("a", 64)}}}, false)
	if networks[0].ID != strings.Repeat("a", 12) {
		t.Errorf("%+v", networks)
	}
}
