package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"davit/engine/container"
	"davit/network"
	"davit/oci/errdefs"
)

// writeFiles writes a container's hostname, hosts and resolv.conf, which belong to its root, and
// returns where they are. A container in another's network has the other's files.
func (s *shared) writeFiles(r *container.Record, endpoints []endpoint, links []linked) (container.Files, error) {
	if name := r.HostConfig.NetworkMode.ConnectedContainer(); r.HostConfig.NetworkMode.IsContainer() {
		a, err := s.roster.find(name)
		if err != nil {
			return container.Files{}, err
		}
		return filesIn(a.record().Dir), nil
	}
	if err := os.Mkdir(r.Dir, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return container.Files{}, fmt.Errorf("prepare container: %w", err)
	}
	files := filesIn(r.Dir)
	hosts, err := s.hosts(r, endpoints, links)
	if err != nil {
		return container.Files{}, err
	}
	resolv, err := s.resolv(r, endpoints)
	if err != nil {
		return container.Files{}, err
	}
	for _, f := range []struct {
		path    string
		content []byte
	}{{files.Hostname, []byte(r.Config.Hostname + "\n")}, {files.Hosts, hosts}, {files.Resolv, resolv}} {
		if err := s.writeFile(r, f.path, f.content); err != nil {
			return container.Files{}, fmt.Errorf("prepare container: %w", err)
		}
	}
	return files, nil
}

func filesIn(dir string) container.Files {
	return container.Files{
		Hostname: filepath.Join(dir, "hostname"), Hosts: filepath.Join(dir, "hosts"), Resolv: filepath.Join(dir, "resolv.conf"),
	}
}

func (s *shared) writeFile(r *container.Record, path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return err
	}
	if r.UserNS.Mode == container.UserHost {
		return nil
	}
	return os.Lchown(path, int(r.UserNS.HostID(0)), int(r.UserNS.HostID(0)))
}

func (s *shared) hosts(r *container.Record, endpoints []endpoint, links []linked) ([]byte, error) {
	extra := linkHosts(links)
	for _, entry := range r.HostConfig.ExtraHosts {
		name, address, ok := cutHost(entry)
		if !ok {
			return nil, errdefs.Invalid("bad format for add-host: %q", entry)
		}
		addr := s.Options.Networks.HostGateway()
		if address != "host-gateway" {
			var err error
			if addr, err = netip.ParseAddr(strings.Trim(address, "[]")); err != nil {
				return nil, errdefs.Invalid("invalid IP address in add-host: %q", address)
			}
		}
		extra = append(extra, network.Host{Addr: addr, Names: []string{name}})
	}
	if r.HostConfig.NetworkMode.IsHost() {
		b, err := os.ReadFile("/etc/hosts")
		if err == nil {
			for _, h := range extra {
				b = fmt.Appendf(b, "%s\t%s\n", h.Addr, strings.Join(h.Names, " "))
			}
			return b, nil
		}
	}
	return network.HostsFile(r.Config.Hostname, r.Config.Domainname, endpoints, extra), nil
}

// cutHost splits "name:address" or "name=address"; an address may have colons.
func cutHost(entry string) (name, address string, ok bool) {
	i := strings.IndexAny(entry, ":=")
	if i <= 0 {
		return "", "", false
	}
	return entry[:i], entry[i+1:], true
}

func (s *shared) resolv(r *container.Record, endpoints []endpoint) ([]byte, error) {
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("prepare container: %w", err)
	}
	h := r.HostConfig
	q := network.ResolvRequest{Host: host, Servers: h.DNS, Search: h.DNSSearch, Options: h.DNSOptions, HostNetwork: h.NetworkMode.IsHost()}
	if len(q.Servers) == 0 {
		q.Servers = s.DNS.Servers
	}
	if len(q.Search) == 0 {
		q.Search = s.DNS.Search
	}
	if len(q.Options) == 0 {
		q.Options = s.DNS.Options
	}
	for _, e := range endpoints {
		q.IPv6 = q.IPv6 || e.IPv6.IsValid()
		if n, err := s.Options.Networks.Get(e.NetworkID); err == nil && n.NameService() {
			q.NameService = true
		}
	}
	return network.ResolvConf(q), nil
}

// joins finds the namespaces that a container shares with others, and the directory of a shared
// /dev/shm.
func (s *shared) joins(r *container.Record) (j container.Join, shm string, err error) {
	h := r.HostConfig
	for _, mode := range []struct {
		mode string
		kind string
		into *string
	}{{string(h.NetworkMode), "net", &j.Net}, {string(h.PidMode), "pid", &j.PID}, {string(h.IpcMode), "ipc", &j.IPC}} {
		name, ok := strings.CutPrefix(mode.mode, "container:")
		if !ok {
			continue
		}
		other, err := s.running(name)
		if err != nil {
			return j, "", err
		}
		if mode.kind == "ipc" && !other.HostConfig.IpcMode.IsShareable() {
			return j, "", errdefs.Invalid("can't join IPC of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", other.ID)
		}
		*mode.into = fmt.Sprintf("/proc/%d/ns/%s", other.State.Pid, mode.kind)
		if mode.kind == "ipc" {
			shm = s.shmDir(other.ID)
		}
	}
	if r.UserNS.Mode == container.UserShared {
		other, err := s.running(r.UserNS.Joined)
		if err != nil {
			return j, "", err
		}
		j.User = fmt.Sprintf("/proc/%d/ns/user", other.State.Pid)
	}
	if h.IpcMode.IsShareable() {
		shm = s.shmDir(r.ID)
		if err := os.MkdirAll(shm, 0o755); err != nil {
			return j, "", fmt.Errorf("prepare container: %w", err)
		}
		if err := os.Chmod(shm, 0o1777); err != nil {
			return j, "", fmt.Errorf("prepare container: %w", err)
		}
	}
	return j, shm, nil
}

// shmDir is where the shared memory of a container lies that lets others join its IPC namespace.
func (s *shared) shmDir(id string) string { return filepath.Join(s.Run, "shm", id) }

// running returns the record of a container that has to run for another one to join it.
func (s *shared) running(name string) (*container.Record, error) {
	a, err := s.roster.find(name)
	if err != nil {
		return nil, err
	}
	r := a.record()
	if !r.State.Status.Alive() {
		return nil, errdefs.Conflict("cannot join namespace of a non running container: %s", r.Name)
	}
	return r, nil
}

// removeAll deletes a directory of davit's own.
func removeAll(dir string) error {
	if dir == "" {
		return nil
	}
	return os.RemoveAll(dir)
}
