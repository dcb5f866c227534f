package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// runLatency is the whole process of "run --rm busybox true".
func (b *bench) runLatency() error {
	for _, network := range []string{"bridge", "host", "none"} {
		results, err := b.raceEngines(30, "run", "--rm", "--net", network, "busybox", "true")
		if err != nil {
			return err
		}
		if network == "none" {
			runtimes, err := b.runtimes()
			if err != nil {
				return err
			}
			results = append(results, runtimes...)
		}
		budget := ""
		if network == "bridge" {
			budget = "<= 1/20 of docker, <= 20 ms at the median, p99 <= 3x median"
		}
		table("run --rm --net "+network+" busybox true", budget, results)
	}
	return nil
}

// runtimes are the programs that start a process from a ready bundle or directory, with no engine.
func (b *bench) runtimes() ([]result, error) {
	bundle := filepath.Join(b.root, "bundle")
	rootfs := filepath.Join(bundle, "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return nil, err
	}
	if _, err := command(nil, "tar", "-C", rootfs, "-xf", filepath.Join(b.root, "busybox.tar")); err != nil {
		return nil, err
	}
	var contenders []contender
	for _, runtime := range []string{filepath.Join(b.bin, "davit-oci"), "runc", "crun"} {
		if missing(runtime) {
			continue
		}
		spec := exec.Command(runtime, "spec")
		spec.Dir = bundle
		_ = os.Remove(filepath.Join(bundle, "config.json"))
		if out, err := spec.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s spec: %w: %s", runtime, err, out)
		}
		config := filepath.Join(bundle, filepath.Base(runtime)+".json")
		if _, err := command(nil, "sed", "-e", `s/"terminal": true/"terminal": false/`, "-e", `s/"sh"/"true"/`, "-e", `s#"path": "rootfs"#"path": "`+rootfs+`"#`, "-e", "w "+config, filepath.Join(bundle, "config.json")); err != nil {
			return nil, err
		}
		own := filepath.Join(b.root, "bundle-"+filepath.Base(runtime))
		if err := os.MkdirAll(own, 0o755); err != nil {
			return nil, err
		}
		if err := os.Rename(config, filepath.Join(own, "config.json")); err != nil {
			return nil, err
		}
		contenders = append(contenders, contender{filepath.Base(runtime) + " run", func() error {
			_, err := command(nil, runtime, "--root", filepath.Join(b.root, "oci-"+filepath.Base(runtime)), "run", "--bundle", own, "bench")
			return err
		}})
	}
	if !missing("bwrap") {
		contenders = append(contenders, contender{"bwrap", func() error {
			_, err := command(nil, "bwrap", "--unshare-all", "--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", "/bin/true")
			return err
		}})
	}
	return race(30, contenders...)
}

// parallel starts 100 containers at once, and removes them.
func (b *bench) parallel() error {
	var starts, removals []result
	for _, e := range b.bridging() {
		begin := time.Now()
		ids, err := startMany(e, 100)
		if err != nil && e.name != "davit" {
			leaveOut(e.name, err)
			continue
		}
		if err != nil {
			return err
		}
		starts = append(starts, result{name: e.name, times: []time.Duration{time.Since(begin)}})
		begin = time.Now()
		if _, err := e.do(append([]string{"rm", "-f"}, ids...)...); err != nil {
			return err
		}
		removals = append(removals, result{name: e.name, times: []time.Duration{time.Since(begin)}})
	}
	table("100 x run -d at once", "<= 1/15 of docker", starts)
	table("rm -f of 100 running containers", "<= 1/15 of docker", removals)
	return nil
}

// bridging are the engines that can run containers on a bridge here.
func (b *bench) bridging() []engine {
	if b.podmanBridges {
		return b.engines
	}
	return slices.DeleteFunc(slices.Clone(b.engines), func(e engine) bool { return e.name == "podman" })
}

func startMany(e engine, n int) ([]string, error) {
	ids, errs := make([]string, n), make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			ids[i], errs[i] = e.do("run", "-d", "busybox", "sleep", "100000")
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// memory is what an engine costs idle, and what each idle container adds beyond its own process.
func (b *bench) memory() error {
	fmt.Printf("\nmemory (PSS)\n  budget: engine and monitor <= 40 MiB, each container <= 64 KiB\n")
	for _, e := range b.engines {
		if e.procs == nil {
			continue
		}
		idle := settledPSS(e.procs)
		// The first make the programs grow once; what one more costs shows after them.
		const first, n = 10, 50
		var ids []string
		pss := []int{}
		for _, more := range []int{first, n, n} {
			started, err := startMany(e, more)
			if err != nil {
				return err
			}
			ids, pss = append(ids, started...), append(pss, settledPSS(e.procs))
		}
		fmt.Printf("  %-10s idle %6.1f MiB   with %d containers %6.1f MiB   each of %d %7.1f KiB, of %d more %7.1f KiB\n",
			e.name, float64(idle)/1024, first+n, float64(pss[1])/1024, n, float64(pss[1]-pss[0])/n, n, float64(pss[2]-pss[1])/n)
		if _, err := e.do(append([]string{"rm", "-f"}, ids...)...); err != nil {
			return err
		}
		fmt.Printf("  %-10s idle again %6.1f MiB\n", e.name, float64(settledPSS(e.procs))/1024)
	}
	return nil
}

// build is a Dockerfile of 20 steps, cold and with nothing changed.
func (b *bench) build() error {
	var cold []result
	var warm []contender
	for _, e := range b.engines {
		dir := filepath.Join(b.root, "build-"+e.name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		file := "FROM busybox\n"
		for i := range 20 {
			file += fmt.Sprintf("RUN echo %d\n", i)
		}
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(file), 0o644); err != nil {
			return err
		}
		build := func() error { _, err := e.do("build", "-t", "bench", dir); return err }
		begin := time.Now()
		if err := build(); err != nil && e.name == "podman" {
			fmt.Println("(podman cannot build here)")
			continue
		} else if err != nil {
			return err
		}
		cold = append(cold, result{name: e.name, times: []time.Duration{time.Since(begin)}})
		warm = append(warm, contender{e.name, build})
	}
	table("build of 20 RUN steps, cold", "<= 25 ms a step above the process itself", cold)
	results, err := race(10, warm...)
	if err != nil {
		return err
	}
	table("the same with nothing changed", "<= 50 ms", results)
	return nil
}

// ship pushes an image of several layers to a registry on loopback and pulls it back.
func (b *bench) ship() error {
	const address = "127.0.0.1:5999"
	if err := b.daemon("registry", filepath.Join(b.bin, "davit"), "registry", "serve", "--addr", address, "--root", filepath.Join(b.root, "registry")); err != nil {
		return err
	}
	dir, err := b.shippedContext()
	if err != nil {
		return err
	}
	var pushes, pulls []result
	for _, e := range b.engines {
		image := address + "/bench-" + e.name
		if _, err := e.do("build", "-t", image, dir); err != nil {
			return err
		}
		insecure := []string{}
		if e.name == "podman" {
			insecure = []string{"--tls-verify=false"}
		}
		timed := func(args ...string) (result, error) {
			begin := time.Now()
			_, err := e.do(args...)
			return result{name: e.name, times: []time.Duration{time.Since(begin)}}, err
		}
		pushed, err := timed(append(append([]string{"push"}, insecure...), image)...)
		if err != nil {
			return err
		}
		if _, err := e.do("rmi", "-f", image); err != nil {
			return err
		}
		if _, err := e.do("image", "prune", "-af"); err != nil {
			return err
		}
		if e.name != "podman" {
			if _, err := e.do("builder", "prune", "-af"); err != nil {
				return err
			}
		}
		pulled, err := timed(append(append([]string{"pull"}, insecure...), image)...)
		if err != nil {
			return err
		}
		pushes, pulls = append(pushes, pushed), append(pulls, pulled)
		if _, err := e.do("import", filepath.Join(b.root, "busybox.tar"), "busybox"); err != nil {
			return err
		}
	}
	table("push of a new image (Debian files and 5 layers of 20 MB)", "", pushes)
	table("pull of it, nothing there", "<= 1/3 of docker", pulls)
	return nil
}

// shippedContext makes layers of what this machine has: its own programs and libraries.
func (b *bench) shippedContext() (string, error) {
	dir := filepath.Join(b.root, "ship")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	script := `set -e; cd "$1"; tar -C /usr -cf share.tar share/perl share/perl5 lib/python3 2>/dev/null || true
files=$(find /usr/lib /usr/bin -xdev -type f -size +100k -size -20M 2>/dev/null | sort | head -400)
i=0; for n in 1 2 3 4 5; do echo "$files" | awk "NR%5==$n-1" | tar -cf part$n.tar -T - 2>/dev/null; done
{ echo FROM busybox; echo ADD share.tar /; for n in 1 2 3 4 5; do echo ADD part$n.tar /; done; } > Dockerfile; du -sm . | cut -f1`
	size, err := command(nil, "sh", "-c", script, "sh", dir)
	fmt.Printf("\n(the shipped image has %s MB of files)\n", size)
	return dir, err
}

// registry compares manifest reads with docker-registry under wrk.
func (b *bench) registry() error {
	if missing("wrk") || missing("docker-registry") {
		return nil
	}
	config := filepath.Join(b.root, "registry.yml")
	text := "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: " + filepath.Join(b.root, "peer-registry") + "}}\nhttp: {addr: '127.0.0.1:5998'}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	if err := b.daemon("docker-registry", "docker-registry", "serve", config); err != nil {
		return err
	}
	if err := b.daemon("davit-registry", filepath.Join(b.bin, "davit"), "registry", "serve", "--addr", "127.0.0.1:5997", "--root", filepath.Join(b.root, "own-registry")); err != nil {
		return err
	}
	fmt.Printf("\nregistry: manifest reads\n  budget: >= 5x docker-registry\n")
	for name, address := range map[string]string{"davit": "127.0.0.1:5997", "docker-registry": "127.0.0.1:5998"} {
		if _, err := command(nil, "curl", "-sf", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "http://"+address+"/v2/"); err != nil {
			return err
		}
		e := b.engines[0]
		if _, err := e.do("tag", "busybox", address+"/box"); err != nil {
			return err
		}
		if _, err := e.do("push", address+"/box"); err != nil {
			return err
		}
		out, err := command(nil, "wrk", "-t1", "-c16", "-d5s", "-H", "Accept: application/vnd.oci.image.manifest.v1+json", "http://"+address+"/v2/box/manifests/latest")
		if err != nil {
			return err
		}
		for line := range strings.SplitSeq(out, "\n") {
			if strings.Contains(line, "Requests/sec") || strings.Contains(line, "Non-2xx") {
				fmt.Printf("  %-16s %s\n", name, strings.TrimSpace(line))
			}
		}
	}
	return nil
}
