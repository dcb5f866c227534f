package bridge

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"davit/kernel/sys"
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
	d, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Ensure(Device{Name: "davit0", MTU: 1500, Addrs: []netip.Prefix{netip.MustParsePrefix("172.17.0.1/16")}, Loopback: true}); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		t0 := time.Now()
		ns, err := sys.NewNetNS()
		if err != nil {
			t.Fatal(err)
		}
		t1 := time.Now()
		ip := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 17, 0, byte(i + 2)}), 16)
		l := Link{Veth: fmt.Sprintf("dv%08x", i), Bridge: "davit0", Interface: "eth0", MTU: 1500, MAC: []byte{2, 66, 172, 17, 0, byte(i + 2)}, Addrs: []netip.Prefix{ip}, Gateways: []netip.Addr{netip.MustParseAddr("172.17.0.1")}}
		ports, err := d.Connect(ns.Fd(), []Link{l}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t2 := time.Now()
		if i == 0 {
			sys.InNetNS(ns.Fd(), func() error {
				out, _ := exec.Command("sh", "-c", "ip a; ip r; ip -6 r;").CombinedOutput()
				fmt.Println(string(out))
				return nil
			})
			out, _ := exec.Command("sh", "-c", "ip -d a; ip r").CombinedOutput()
			fmt.Println(string(out))
		}
		if i%2 == 1 {
			ns.Close()
			t3 := time.Now()
			if err := d.Silence(ports); err != nil {
				t.Fatal(err)
			}
			if err := d.Silence([]int{1234}); err != nil {
				t.Fatal(err)
			}
			fmt.Println("newns", t1.Sub(t0), "connect", t2.Sub(t1), "silence", time.Since(t3))
			continue
		}
		t3 := time.Now()
		if err := d.Disconnect(l.Veth); err != nil {
			t.Fatal(err)
		}
		fmt.Println("newns", t1.Sub(t0), "connect", t2.Sub(t1), "disconnect", time.Since(t3))
		ns.Close()
	}
}
