package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// engine is a container engine with a command line like docker's.
type engine struct {
	name  string
	cli   []string // the client and the flags that point it at this engine
	procs []string // words in the command lines of its processes, for the memory figures
	env   []string // of the client
}

// cmd returns the full argument list of one of its commands.
func (e engine) cmd(args ...string) []string { return append(append([]string{}, e.cli...), args...) }

func (e engine) do(args ...string) (string, error) {
	all := e.cmd(args...)
	return command(append([]string{"DOCKER_BUILDKIT=0"}, e.env...), all[0], all[1:]...)
}

// bench is the state of one run.
type bench struct {
	root, repository, bin string
	engines               []engine // davit first
	daemons               []*exec.Cmd
	podmanBridges         bool // podman has the programs that its bridge network needs
}

// start starts the engines and gives each the busybox image.
func (b *bench) start() error {
	davit := filepath.Join(b.root, "davit")
	if err := runDir(davit + "/run"); err != nil {
		return err
	}
	b.engines = append(b.engines, engine{"davit", []string{filepath.Join(b.bin, "davit"), "-H", "unix://" + davit + ".sock"}, []string{davit + "/"}, nil})
	err := b.daemon("davitd", filepath.Join(b.bin, "davitd"), "--data-root", davit+"/data", "--exec-root", davit+"/run", "--pidfile", davit+".pid", "-H", "unix://"+davit+".sock")
	if err != nil {
		return err
	}
	if err := b.startDocker(); err != nil {
		return err
	}
	if err := b.startPodman(); err != nil {
		return err
	}
	tar := filepath.Join(b.root, "busybox.tar")
	if _, err := command(nil, filepath.Join(b.repository, "examples/base/busybox.sh"), tar); err != nil {
		return err
	}
	for _, e := range b.engines {
		if err := waitReady(e); err != nil {
			return err
		}
		if _, err := e.do("import", tar, "busybox"); err != nil {
			return err
		}
	}
	return nil
}

// runDir makes an engine's directory of run-time state on a tmpfs, as /run is.
func runDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	_, err := command(nil, "mount", "-t", "tmpfs", "-o", "mode=755", "run", dir)
	return err
}

func (b *bench) startDocker() error {
	if missing("dockerd") || missing("docker") {
		return nil
	}
	docker := filepath.Join(b.root, "docker")
	if err := runDir(docker + "/run"); err != nil {
		return err
	}
	b.engines = append(b.engines, engine{"docker", []string{"docker", "-H", "unix://" + docker + ".sock"}, []string{docker + "/", docker + "."}, nil})
	return b.daemon("dockerd", "dockerd", "--data-root", docker+"/data", "--exec-root", docker+"/run", "--pidfile", docker+".pid",
		"-H", "unix://"+docker+".sock", "--bridge", b.bridge("docker9", "172.29.0.1/16"), "--storage-driver", "overlay2")
}

// bridge makes the bridge that a peer is told to use, so that its default does not collide.
func (b *bench) bridge(name, address string) string {
	for _, args := range [][]string{{"link", "add", name, "type", "bridge"}, {"addr", "add", address, "dev", name}, {"link", "set", name, "up"}} {
		if _, err := command(nil, "ip", args...); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	return name
}

// startPodman prepares podman, which needs no server. It may not raise resource limits where root may not.
func (b *bench) startPodman() error {
	if missing("podman") {
		return nil
	}
	const processes = 6 // RLIMIT_NPROC
	var files, tasks syscall.Rlimit
	if err := errors.Join(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files), syscall.Getrlimit(processes, &tasks)); err != nil {
		return err
	}
	config := filepath.Join(b.root, "containers.conf")
	text := fmt.Sprintf("[containers]\ndefault_ulimits = [\"nofile=%d:%d\", \"nproc=%d:%d\"]\n", files.Cur, files.Max, int64(tasks.Cur), int64(tasks.Max))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	for _, plugin := range []string{"/usr/lib/cni/bridge", "/opt/cni/bin/bridge", "/usr/libexec/cni/bridge", "/usr/lib/podman/netavark"} {
		if _, err := os.Stat(plugin); err == nil {
			b.podmanBridges = true
		}
	}
	if !b.podmanBridges {
		fmt.Println("(podman runs on no bridge: its network plugins are not installed)")
	}
	podman := filepath.Join(b.root, "podman")
	b.engines = append(b.engines, engine{"podman", []string{"podman", "--root", podman + "/root", "--runroot", podman + "/run", "--cgroup-manager", "cgroupfs", "--storage-driver", "overlay", "--tmpdir", podman + "/tmp"}, nil, []string{"CONTAINERS_CONF=" + config}})
	return nil
}

func missing(name string) bool {
	_, err := exec.LookPath(name)
	if err != nil {
		fmt.Printf("(%s is not installed)\n", name)
	}
	return err != nil
}

// daemon starts a server whose output goes to a log file.
func (b *bench) daemon(name, path string, args ...string) error {
	log, err := os.Create(filepath.Join(b.root, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	b.daemons = append(b.daemons, cmd)
	return nil
}

func waitReady(e engine) error {
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if _, err = e.do("ps"); err == nil {
			return nil
		}
		<-time.After(50 * time.Millisecond)
	}
	return fmt.Errorf("%s does not answer: %w", e.name, err)
}

// close removes the containers and stops what start started.
func (b *bench) close() {
	for _, e := range b.engines {
		if ids, err := e.do("ps", "-aq"); err == nil && ids != "" {
			_, _ = e.do(append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
		}
	}
	for i := len(b.daemons) - 1; i >= 0; i-- {
		_ = b.daemons[i].Process.Signal(syscall.SIGTERM)
		_ = b.daemons[i].Wait()
	}
	for _, pid := range processes([]string{b.root}) {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	for deadline := time.Now().Add(10 * time.Second); len(processes([]string{b.root})) > 0 && time.Now().Before(deadline); {
		<-time.After(20 * time.Millisecond)
	}
	out, _ := exec.Command("sh", "-c", "grep ' "+b.root+"/' /proc/self/mounts | cut -d' ' -f2 | sort -r | xargs -r umount -l").CombinedOutput()
	if err := os.RemoveAll(b.root); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", errors.Join(err, errors.New(string(out))))
	}
}

// processes lists the pids whose command lines hold one of the words.
func processes(words []string) []int {
	entries, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var pids []int
	for _, entry := range entries {
		cmdline, err := os.ReadFile(entry)
		if err != nil {
			continue
		}
		var pid int
		_, _ = fmt.Sscanf(entry, "/proc/%d/", &pid)
		for _, word := range words {
			if pid != os.Getpid() && strings.Contains(string(cmdline), word) {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}
