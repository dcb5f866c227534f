package netlink

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"davit/internal/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func open(t *testing.T) *Conn {
	t.Helper()
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A batch goes on behind a request that fails, and names what failed.
func TestBatch(t *testing.T) {
	c := open(t)
	err := c.Do(AddBridge("br1", 1500, nil), AddBridge("br1", 1500, nil), DelLink("nobody"), AddBridge("br2", 1500, nil))
	if !errors.Is(err, syscall.EEXIST) || !errors.Is(err, syscall.ENODEV) || !strings.Contains(err.Error(), "delete link nobody") {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"br1", "br2"} {
		if index, err := c.LinkIndex(name); err != nil || index < 2 {
			t.Errorf("%s has index %d, %v", name, index, err)
		}
	}
	if err := c.Do(DelLink("br1"), DelLink("br2")); err != nil {
		t.Error(err)
	}
	if _, err := c.LinkIndex("br1"); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("removed link: %v", err)
	}
	if err := c.Do(); err != nil {
		t.Errorf("empty batch: %v", err)
	}
}

func TestOccupied(t *testing.T) {
	c := open(t)
	if err := c.Do(AddBridge("br1", 1500, nil)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Do(DelLink("br1")) }()
	index, err := c.LinkIndex("br1")
	if err != nil {
		t.Fatal(err)
	}
	four, six := netip.MustParsePrefix("10.3.4.5/22"), netip.MustParsePrefix("fd00:7::1/64")
	far := netip.MustParsePrefix("10.99.0.0/16")
	gateway, all := netip.MustParseAddr("10.3.4.9"), netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if err := c.Do(SetUp(index), AddAddr(index, four), AddAddr(index, six), AddRoute(index, far, gateway), AddRoute(index, all, gateway)); err != nil {
		t.Fatal(err)
	}
	taken, err := Occupied()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []netip.Prefix{four.Masked(), six.Masked(), far} {
		if !slices.Contains(taken, want) {
			t.Errorf("%s is missing in %v", want, taken)
		}
	}
	if slices.Contains(taken, all) {
		t.Error("the default route counts")
	}
	if addrs, err := AddrsOf(index); err != nil || !slices.Contains(addrs, four) || !slices.Contains(addrs, six) {
		t.Errorf("addresses %v, %v", addrs, err)
	}
}
