package firewall

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv("IN_NS") == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), "IN_NS=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if err := cmd.Run(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestTry(t *testing.T) {
	f, err := Open("davit")
	if err != nil {
		t.Fatal(err)
	}
	n := Net{Bridge: "davit0", Subnets: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("fd00::/64")}, Masquerade: true}
	err = f.Apply([]Net{n}, []Mapping{{6, netip.MustParseAddr("0.0.0.0"), 8080, netip.MustParseAddrPort("172.17.0.2:80")}, {6, netip.MustParseAddr("127.0.0.1"), 8081, netip.MustParseAddrPort("172.17.0.2:80")}, {17, netip.MustParseAddr("::"), 8081, netip.MustParseAddrPort("[fd00::2]:80")}})
	out, _ := exec.Command("nft", "list", "ruleset").CombinedOutput()
	fmt.Println(string(out))
	if err != nil {
		t.Fatal(err)
	}
	m2 := n
	m2.Bridge = "br-x"
	m2.Subnets = []netip.Prefix{netip.MustParsePrefix("172.18.0.0/16")}
	m2.Internal = true
	if err := f.AddNet(m2); err != nil {
		t.Fatal(err)
	}
	if err := f.RemoveNet("br-x"); err != nil {
		t.Fatal(err)
	}
	if err := f.Unpublish([]Mapping{{6, netip.MustParseAddr("0.0.0.0"), 8080, netip.MustParseAddrPort("172.17.0.2:80")}}); err != nil {
		t.Fatal(err)
	}
	out, _ = exec.Command("nft", "list", "ruleset").CombinedOutput()
	fmt.Println(string(out))

}
