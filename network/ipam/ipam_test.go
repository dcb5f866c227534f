package ipam

import (
	"errors"
	"net/netip"
	"testing"

	"davit/oci/errdefs"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestNextSubnet(t *testing.T) {
	for name, c := range map[string]struct {
		taken []netip.Prefix
		want  string
	}{
		"first":           {nil, "172.17.0.0/16"},
		"route inside":    {[]netip.Prefix{prefix("172.17.3.0/24")}, "172.18.0.0/16"},
		"wide route":      {[]netip.Prefix{prefix("172.16.0.0/12")}, "192.168.0.0/20"},
		"middle of pool":  {[]netip.Prefix{prefix("172.16.0.0/12"), prefix("192.168.17.0/24")}, "192.168.0.0/20"},
		"skips a blocker": {[]netip.Prefix{prefix("172.16.0.0/12"), prefix("192.168.0.0/18")}, "192.168.64.0/20"},
		"extra pool":      {[]netip.Prefix{prefix("172.16.0.0/12"), prefix("192.168.0.0/16")}, "10.192.0.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := NextSubnet(DefaultPools(), false, c.taken)
			if err != nil || got.String() != c.want {
				t.Errorf("got %s, %v; want %s", got, err, c.want)
			}
		})
	}
	_, err := NextSubnet(DefaultPools(), false, []netip.Prefix{prefix("0.0.0.0/1"), prefix("128.0.0.0/1")})
	if !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("everything taken: got %v", err)
	}
}

func TestNextSubnetMany(t *testing.T) {
	var taken []netip.Prefix
	for range 1000 {
		next, err := NextSubnet(DefaultPools(), false, taken)
		if err != nil {
			t.Fatal(err)
		}
		for _, old := range taken {
			if old.Overlaps(next) {
				t.Fatalf("%s overlaps %s", next, old)
			}
		}
		taken = append(taken, next)
	}
}

func TestSpace(t *testing.T) {
	s, err := NewSpace(prefix("10.1.0.0/29"), netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Take(netip.MustParseAddr("10.1.0.1")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"} {
		if got, err := s.Next(); err != nil || got.String() != want {
			t.Fatalf("got %s, %v; want %s", got, err, want)
		}
	}
	if _, err := s.Next(); !errors.Is(err, errdefs.ErrExhausted) {
		t.Fatalf("full subnet: got %v", err)
	}
	s.Free(netip.MustParseAddr("10.1.0.4"))
	if got, _ := s.Next(); got.String() != "10.1.0.4" {
		t.Errorf("the freed address is not next: %s", got)
	}
	if err := s.Take(netip.MustParseAddr("10.1.0.4")); err == nil || err.Error() != "Address already in use" {
		t.Errorf("used address: got %v", err)
	}
	if err := s.Take(netip.MustParseAddr("10.1.0.8")); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("foreign address: got %v", err)
	}
}

func TestSpaceRange(t *testing.T) {
	s, err := NewSpace(prefix("10.1.0.0/16"), prefix("10.1.5.0/30"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10.1.5.0", "10.1.5.1", "10.1.5.2", "10.1.5.3"} {
		if got, err := s.Next(); err != nil || got.String() != want {
			t.Fatalf("got %s, %v; want %s", got, err, want)
		}
	}
	outside := netip.MustParseAddr("10.1.9.9")
	if err := s.Take(outside); err != nil {
		t.Errorf("address outside the range, inside the subnet: %v", err)
	}
	if err := s.Take(outside); err == nil {
		t.Error("taken twice")
	}
	s.Free(outside)
	if err := s.Take(outside); err != nil {
		t.Error(err)
	}
	if _, err := NewSpace(prefix("10.1.0.0/16"), prefix("10.2.0.0/24")); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("range outside the subnet: got %v", err)
	}
}

func TestSpaceWide(t *testing.T) {
	for subnet, want := range map[string]string{"fd00:1::/64": "fd00:1::1", "10.0.0.0/8": "10.0.0.1"} {
		s, err := NewSpace(prefix(subnet), netip.Prefix{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Next(); err != nil || got.String() != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
		last := Last(prefix(subnet))
		if err := s.Take(last); last.Is6() != (err == nil) {
			t.Errorf("the highest address %s: %v", last, err)
		}
	}
}

func TestLocalSubnet(t *testing.T) {
	a, b := LocalSubnet("one"), LocalSubnet("two")
	if a == b || a != LocalSubnet("one") || !prefix("fd00::/8").Overlaps(a) || a.Bits() != 64 || a.Masked() != a {
		t.Errorf("%s, %s", a, b)
	}
}
