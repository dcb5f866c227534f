package network_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"davit/network"
)

// guarded is a world with containers and a published port, whose host gets a firewall.
type guarded struct {
	*world
	web, peer *box
}

func newGuarded(t *testing.T) *guarded {
	t.Cleanup(func() { exec.Command("nft", "flush", "ruleset").Run() }) // what the firewall leaves
	w := newWorld(t)
	w.command(nil, "ip", "link", "set", "lo", "up")
	w.serve(w.outside, "tcp", ":7000")
	w.create("app", "10.1.0.0/24")
	w.create("six", "fd00:5::/64", func(c *network.Config) { c.EnableV6 = true })
	g := &guarded{world: w, web: w.run("web", "bridge", tcp(8080, 80)), peer: w.run("peer", "app")}
	six := w.run("six", "six", tcp(8086, 80))
	w.serve(g.web.ns, "tcp", ":80")
	w.serve(six.ns, "tcp", ":80")
	g.web.carry()
	return g
}

// alive checks what no firewall of the host may break.
func (g *guarded) alive() {
	g.Helper()
	g.eventually(g.web.ns, outsideAddr+":7000", hostAddr)
	g.reaches(g.peer.ns, "tcp", outsideAddr+":7000", hostAddr)
	g.reaches(nil, "tcp", "127.0.0.1:8080", "")
	g.reaches(g.peer.ns, "tcp", hostAddr+":8080", "")
	g.misses(g.peer.ns, "tcp", g.web.addr()+":80")
}

// eventually waits for what follows a change of the host's rules: the engine sees them a moment later.
func (g *guarded) eventually(ns *os.File, address, source string) {
	g.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if seen, err := g.ask(ns, "tcp", address, 200*time.Millisecond); err == nil && seen == source {
			return
		}
	}
	g.reaches(ns, "tcp", address, source)
}

func (g *guarded) eventuallyNot(ns *os.File, address string) {
	g.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if _, err := g.ask(ns, "tcp", address, 200*time.Millisecond); err != nil {
			return
		}
	}
	g.misses(ns, "tcp", address)
}

func (g *guarded) do(env []string, args ...string) string {
	g.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		g.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// On a host whose FORWARD chain drops by default (docker's doing) containers still get out, and what is
// published is open from outside.
func TestForwardDrop(t *testing.T) {
	g := newGuarded(t)
	g.command(nil, "iptables", "-P", "FORWARD", "DROP")
	g.eventually(g.outside, hostAddr+":8080", outsideAddr)
	g.alive()
	if listed := g.command(nil, "iptables", "-S", "FORWARD"); !strings.Contains(listed, "-A FORWARD -i davit0 ") {
		t.Errorf("iptables does not understand what davit adds:\n%s", listed)
	}
	g.peer.remove()
	must(g.c.Remove(context.Background(), "app"))
	if n := strings.Count(g.command(nil, "iptables", "-S", "FORWARD"), "-A FORWARD "); n != 6 {
		t.Errorf("%d rules for two bridges:\n%s", n, rules())
	}
}

// A published port is open where ufw allows packets to the host's port, or routing to the container's.
func TestUFW(t *testing.T) {
	g := newGuarded(t)
	ufw := g.ufw()
	g.eventually(g.outside, hostAddr+":8080", outsideAddr)
	ufw("--force", "enable")
	g.eventuallyNot(g.outside, hostAddr+":8080")
	g.alive()
	g.misses(g.outside, "tcp", "[2001:db8::1]:8086")
	g.misses(g.outside, "tcp", "[2001:db8::1]:8080")

	ufw("allow", "8080/tcp")
	g.eventually(g.outside, hostAddr+":8080", outsideAddr)
	g.reaches(g.outside, "tcp", "[2001:db8::1]:8080", "172.17.0.1")
	g.misses(g.outside, "tcp", "[2001:db8::1]:8086")
	ufw("delete", "allow", "8080/tcp")
	g.eventuallyNot(g.outside, hostAddr+":8080")
	ufw("allow", "from", outsideAddr, "to", "any", "port", "8000:8080,9000", "proto", "tcp")
	ufw("allow", "8086/tcp")
	g.eventually(g.outside, hostAddr+":8080", outsideAddr)
	g.eventually(g.outside, "[2001:db8::1]:8086", "2001:db8::9")
	ufw("delete", "allow", "from", outsideAddr, "to", "any", "port", "8000:8080,9000", "proto", "tcp")
	g.eventuallyNot(g.outside, hostAddr+":8080")
	ufw("route", "allow", "to", "any", "port", "80", "proto", "tcp")
	g.eventually(g.outside, hostAddr+":8080", outsideAddr)
	g.alive()
	if listed := g.command(nil, "iptables", "-S", "FORWARD"); !strings.Contains(listed, "-A FORWARD -i davit0 ") {
		t.Errorf("iptables does not understand what davit adds:\n%s", listed)
	}
	ufw("route", "delete", "allow", "to", "any", "port", "80", "proto", "tcp")
	g.eventuallyNot(g.outside, hostAddr+":8080")
	ufw("default", "allow", "incoming")
	g.eventually(g.outside, hostAddr+":8080", outsideAddr)
	ufw("deny", "8080/tcp")
	g.eventuallyNot(g.outside, hostAddr+":8080")
	ufw("--force", "disable")
	g.eventually(g.outside, hostAddr+":8080", outsideAddr)
	for deadline := time.Now().Add(5 * time.Second); strings.Contains(rules(), "davit-ufw"); {
		if time.Now().After(deadline) {
			t.Fatalf("a guard is left:\n%s", rules())
		}
	}
}

// ufw returns how to call ufw with a configuration of this test's own.
func (g *guarded) ufw() func(args ...string) {
	etc, run := g.TempDir(), g.TempDir()
	g.do(nil, "cp", "-a", "/etc/.", etc)
	return func(args ...string) {
		g.Helper()
		cmd := exec.Command("sh", append([]string{"-c", `mount --bind "$1" /etc && mount --bind "$2" /run && shift 2 && exec ufw "$@"`, "sh", etc, run}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			g.Fatalf("ufw %v: %v\n%s", args, err, out)
		}
	}
}

// A published port is open where firewalld's zone opens the host's port.
func TestFirewalld(t *testing.T) {
	g := newGuarded(t)
	g.eventually(g.outside, hostAddr+":8080", outsideAddr)
	cmd := g.firewalld()
	g.eventuallyNot(g.outside, hostAddr+":8080")
	g.misses(g.outside, "tcp", "[2001:db8::1]:8080")
	g.alive()
	cmd("--add-port=8080/tcp")
	g.eventually(g.outside, hostAddr+":8080", outsideAddr)
	g.reaches(g.outside, "tcp", "[2001:db8::1]:8080", "172.17.0.1")
	cmd("--remove-port=8080/tcp")
	g.eventuallyNot(g.outside, hostAddr+":8080")
	cmd("--add-rich-rule=rule family=ipv4 source address=" + outsideAddr + " port port=8080 protocol=tcp accept")
	g.eventually(g.outside, hostAddr+":8080", outsideAddr)
	cmd("--reload")
	g.eventuallyNot(g.outside, hostAddr+":8080")
	g.alive()
	cmd("--zone=trusted", "--add-interface=wan0")
	g.eventually(g.outside, hostAddr+":8080", outsideAddr)
	g.eventually(g.outside, "[2001:db8::1]:8086", "2001:db8::9")

	// What firewalld says holds while no engine runs, and for the next one.
	cmd("--zone=public", "--change-interface=wan0")
	g.eventuallyNot(g.outside, hostAddr+":8080")
	g.check(g.c.Close())
	g.misses(g.outside, "tcp", hostAddr+":8080")
	g.open()
	g.misses(g.outside, "tcp", hostAddr+":8080")
	g.alive()
}

// firewalld starts one on a bus of its own and returns how to call firewall-cmd.
func (g *guarded) firewalld() func(args ...string) {
	dir := g.TempDir()
	bus := "unix:path=" + filepath.Join(dir, "bus")
	config := `<busconfig><listen>` + bus + `</listen><auth>EXTERNAL</auth><policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>`
	g.check(os.WriteFile(filepath.Join(dir, "bus.conf"), []byte(config), 0o600))
	daemon := exec.Command("dbus-daemon", "--config-file="+filepath.Join(dir, "bus.conf"), "--nofork", "--print-address")
	g.start(daemon)
	env := []string{"DBUS_SYSTEM_BUS_ADDRESS=" + bus}
	server := exec.Command("firewalld", "--nofork", "--nopid", "--system-config", dir, "--log-target=file", "--log-file="+filepath.Join(dir, "log"))
	server.Env = append(os.Environ(), env...)
	g.start(server)
	call := func(args ...string) ([]byte, error) {
		cmd := exec.Command("firewall-cmd", args...)
		cmd.Env = append(os.Environ(), env...)
		return cmd.CombinedOutput()
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		if out, err := call("--state"); err == nil {
			break
		} else if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			g.Fatalf("firewalld does not start: %s\n%s", out, log)
		}
	}
	return func(args ...string) {
		g.Helper()
		if out, err := call(args...); err != nil {
			g.Fatalf("firewall-cmd %v: %v\n%s", args, err, out)
		}
	}
}

// start starts a server that ends with the test; one that prints is waited for until it does.
func (g *guarded) start(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	g.check(err)
	g.check(cmd.Start())
	g.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if cmd.Args[0] == "dbus-daemon" {
		must(bufio.NewReader(out).ReadString('\n'))
	}
}
