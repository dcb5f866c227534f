package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const deltaRegistry = "127.0.0.1:5996"

// deltaScript makes layers at two versions in the directory $1, of this machine's libraries and of Debian
// packages in $2/1 and $2/2: file (one file of 20 KB is new), package (one package is), packages (all are).
const deltaScript = `set -e; cd "$1"; debs=$2
find /usr/lib /usr/bin -xdev -type f -size -6M 2>/dev/null | sort | awk 'NR % 3 == 0' > list
mkdir file; tar -cf - -T list 2>/dev/null | head -c 160000000 | tar -C file -xf - 2>/dev/null || true
mkdir -p file/etc; head -c 15360 /dev/urandom | base64 | head -c 20480 > file/etc/changed; tar --sort=name -C file -cf file1.tar .
head -c 15360 /dev/urandom | base64 | head -c 20480 > file/etc/changed; tar --sort=name -C file -cf file2.tar .
ls $debs/1/openssl* >/dev/null 2>&1 || exit 0
mkdir package packages; for deb in $debs/1/*.deb; do dpkg-deb -x $deb package; dpkg-deb -x $deb packages; done
tar --sort=name -C package -cf package1.tar .; for deb in $debs/2/openssl* $debs/2/libssl3*; do dpkg-deb -x $deb package; done
tar --sort=name -C package -cf package2.tar .
tar --sort=name -C packages -cf packages1.tar .; for deb in $debs/2/*.deb; do dpkg-deb -x $deb packages; done
tar --sort=name -C packages -cf packages2.tar .`

// delta pulls new versions of layers where the old ones are, and where nothing is.
func (b *bench) delta() error {
	dir := filepath.Join(b.root, "delta")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if _, err := command(nil, "sh", "-c", deltaScript, "sh", dir, filepath.Join(b.repository, ".cache", "bench-debs")); err != nil {
		return err
	}
	log := filepath.Join(dir, "access.log")
	if err := b.daemon("delta-registry", filepath.Join(b.bin, "davit"), "registry", "serve", "--addr", deltaRegistry, "--root", filepath.Join(dir, "registry"), "--access-log", log); err != nil {
		return err
	}
	if _, err := command(nil, "curl", "-sf", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "http://"+deltaRegistry+"/v2/"); err != nil {
		return err
	}
	for _, c := range []struct{ name, title, budget string }{
		{"file", "pull of a new version: one file of 20 KB in a layer of 150 MB", "<= 1 % of the layer on the wire, <= 1.05 times a plain pull"},
		{"package", "pull of a new version: one Debian package of several in a layer", "<= 1.05 times a plain pull"},
		{"packages", "pull of a new version: all Debian packages in a layer", "<= 1.05 times a plain pull"},
	} {
		if _, err := os.Stat(filepath.Join(dir, c.name+"2.tar")); err != nil {
			fmt.Printf("\n(no Debian packages at two versions: %q is left out)\n", c.title)
			continue
		}
		if err := b.deltaOf(dir, log, c.name, c.title, c.budget); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) deltaOf(dir, log, name, title, budget string) error {
	e := b.engines[0]
	image := deltaRegistry + "/" + name
	for _, version := range []string{"1", "2"} {
		if _, err := e.do("import", filepath.Join(dir, name+version+".tar"), image+":"+version); err != nil {
			return err
		}
		if _, err := e.do("push", image+":"+version); err != nil {
			return err
		}
		if err := awaitLists(image, version); err != nil {
			return err
		}
	}
	delta, plain := result{name: "davit, with the old version"}, result{name: "davit, with nothing"}
	var sent, whole int64
	for range 3 {
		for _, had := range []bool{true, false} {
			if err := forget(e, image); err != nil {
				return err
			}
			if had {
				if _, err := e.do("pull", image+":1"); err != nil {
					return err
				}
			}
			if err := os.Truncate(log, 0); err != nil {
				return err
			}
			begin := time.Now()
			if _, err := e.do("pull", image+":2"); err != nil {
				return err
			}
			took := time.Since(begin)
			bytes, err := sentBytes(log)
			if err != nil {
				return err
			}
			if had {
				delta.times, sent = append(delta.times, took), bytes
			} else {
				plain.times, whole = append(plain.times, took), bytes
			}
		}
	}
	slices.Sort(delta.times)
	slices.Sort(plain.times)
	table(title, budget, []result{delta, plain})
	fmt.Printf("  %d bytes on the wire instead of %d: %.2f %%\n", sent, whole, 100*float64(sent)/float64(whole))
	return forget(e, image)
}

// forget removes both versions from the engine.
func forget(e engine, image string) error {
	for _, version := range []string{":1", ":2"} {
		_, _ = e.do("rmi", "-f", image+version) // it may not be there
	}
	_, err := e.do("image", "prune", "-f")
	return err
}

// awaitLists waits until the registry has made the chunk lists of an image.
func awaitLists(image, version string) error {
	_, name, _ := strings.Cut(image, "/")
	script := `digest=$(curl -sfI -H 'Accept: application/vnd.oci.image.manifest.v1+json' http://$1/v2/$2/manifests/$3 | tr -d '\r' | awk 'tolower($1)=="docker-content-digest:" {print $2}')
for i in $(seq 600); do curl -sf http://$1/v2/$2/referrers/$digest | grep -q davit.layer.chunks && exit 0; sleep 0.1; done; exit 1`
	_, err := command(nil, "sh", "-c", script, "sh", deltaRegistry, name, version)
	return err
}

// sentBytes adds up the answers in an access log.
func sentBytes(log string) (int64, error) {
	content, err := os.ReadFile(log)
	if err != nil {
		return 0, err
	}
	var sum int64
	for line := range strings.Lines(strings.Trim(string(content), "\x00")) {
		var entry struct{ Bytes int64 }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			return 0, fmt.Errorf("read access log: %w", err)
		}
		sum += entry.Bytes
	}
	return sum, nil
}
