package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"davit/engine/container"
	"davit/network"
	"davit/oci/errdefs"
)

// linked is another container that one knows by an alias (--link).
type linked struct {
	alias  string
	record *container.Record
	addr   netip.Addr
}

// linkNames are the containers and aliases of --link: "name" or "name:alias", also in the form in which
// docker inspect shows them, "/name:/parent/alias".
func linkNames(r *container.Record) [][2]string {
	all := slices.Clone(r.HostConfig.Links)
	for _, e := range r.Endpoints {
		all = append(all, e.Links...)
	}
	var names [][2]string
	for _, link := range all {
		name, alias, _ := strings.Cut(link, ":")
		name = strings.TrimPrefix(name, "/")
		alias = alias[strings.LastIndexByte(alias, '/')+1:]
		if alias == "" {
			alias = name
		}
		if link := [2]string{name, alias}; !slices.Contains(names, link) {
			names = append(names, link)
		}
	}
	return names
}

// linksShown are the links of --link as clients see them, "/name:/parent/alias". In networks that users made
// links belong to the endpoint.
func linksShown(r *container.Record) []string {
	if !r.HostConfig.NetworkMode.IsBridge() {
		return nil
	}
	var shown []string
	for _, link := range linkNames(r) {
		shown = append(shown, "/"+link[0]+":/"+r.Name+"/"+link[1])
	}
	return shown
}

// linkAliases are the further names that containers have by links to them, by name.
func linkAliases(all []*actor) map[string][]string {
	aliases := map[string][]string{}
	for _, a := range all {
		r := a.record()
		if len(r.HostConfig.Links) == 0 || !r.HostConfig.NetworkMode.IsBridge() {
			continue
		}
		for _, link := range linkNames(r) {
			aliases[link[0]] = append(aliases[link[0]], "/"+r.Name+"/"+link[1])
		}
	}
	return aliases
}

// aliases are the links as the name server of networks that users made knows them: alias to container.
func aliases(r *container.Record) map[string]string {
	all := map[string]string{}
	for _, link := range linkNames(r) {
		all[link[1]] = link[0]
	}
	return all
}

// checkLinks refuses links to what does not exist. In networks that users made a link is one more name,
// which may come to mean something later.
func (s *shared) checkLinks(r *container.Record) error {
	if !r.HostConfig.NetworkMode.IsBridge() {
		return nil
	}
	for _, link := range linkNames(r) {
		if _, err := s.roster.find(link[0]); err != nil {
			return errdefs.Invalid("could not get container for %s: %v", link[0], err)
		}
	}
	return nil
}

// links finds the running containers that a starting one is linked to in the default network.
func (s *shared) links(r *container.Record) ([]linked, error) {
	if !r.HostConfig.NetworkMode.IsBridge() {
		return nil, nil
	}
	var all []linked
	for _, link := range linkNames(r) {
		a, err := s.roster.find(link[0])
		if err != nil {
			return nil, errdefs.Invalid("could not get container for %s: %v", link[0], err)
		}
		other := a.record()
		if !other.State.Status.Alive() {
			return nil, errdefs.Conflict("Cannot link to a non running container: /%s AS /%s/%s", other.Name, r.Name, link[1])
		}
		addr, ok := reachable(r, other)
		if !ok {
			return nil, errdefs.Invalid("Cannot link to %s: it has no address in a network of %s", other.Name, r.Name)
		}
		all = append(all, linked{link[1], other, addr})
	}
	return all, nil
}

// reachable is the address of another container in the first network that both are in.
func reachable(r, other *container.Record) (netip.Addr, bool) {
	for _, name := range networkOrder(r) {
		if e := other.State.Networks[name]; e != nil && e.IPAddress.IsValid() {
			return e.IPAddress, true
		}
	}
	return netip.Addr{}, false
}

// linkHosts are the lines of /etc/hosts for links.
func linkHosts(links []linked) []network.Host {
	var hosts []network.Host
	for _, l := range links {
		names := []string{l.alias}
		for _, name := range []string{l.record.Config.Hostname, l.record.Name} {
			if name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		hosts = append(hosts, network.Host{Addr: l.addr, Names: names})
	}
	return hosts
}

// linkEnv are the variables that describe links, as Docker sets them in its first network alone.
func linkEnv(r *container.Record, links []linked) []string {
	var env []string
	for _, l := range links {
		prefix := strings.ToUpper(strings.ReplaceAll(l.alias, "-", "_"))
		env = append(env, prefix+"_NAME=/"+r.Name+"/"+l.alias)
		env = append(env, linkPorts(prefix, l)...)
		for _, entry := range l.record.Config.Env {
			if name, _, _ := strings.Cut(entry, "="); name != "PATH" && name != "HOME" && name != "HOSTNAME" {
				env = append(env, prefix+"_ENV_"+entry)
			}
		}
	}
	return env
}

func linkPorts(prefix string, l linked) []string {
	var env, names []string
	for port := range l.record.Config.ExposedPorts {
		names = append(names, fmt.Sprintf("%05d/%s", port.Num(), port.Proto()))
	}
	slices.Sort(names)
	for i, name := range names {
		var number int
		padded, proto, _ := strings.Cut(name, "/")
		fmt.Sscanf(padded, "%d", &number)
		url := fmt.Sprintf("%s://%s:%d", proto, l.addr, number)
		if i == 0 {
			env = append(env, prefix+"_PORT="+url)
		}
		key := fmt.Sprintf("%s_PORT_%d_%s", prefix, number, strings.ToUpper(proto))
		env = append(env, key+"="+url, fmt.Sprintf("%s_ADDR=%s", key, l.addr), fmt.Sprintf("%s_PORT=%d", key, number), key+"_PROTO="+proto)
	}
	return env
}

// relink writes the hosts files of the running containers that are linked to one which has just
// started, perhaps with another address.
func (s *shared) relink(started *container.Record) {
	for _, a := range s.roster.all() {
		r := a.record()
		linksTo := func(link [2]string) bool { return link[0] == started.Name || link[0] == started.ID }
		if r.ID == started.ID || !r.State.Status.Alive() || !slices.ContainsFunc(linkNames(r), linksTo) {
			continue
		}
		links, err := s.links(r)
		if err != nil {
			s.Log.Warn("renew links", "container", r.ID, "error", err)
			continue
		}
		hosts, err := s.hosts(r, s.Options.Networks.ContainerEndpoints(r.ID), links)
		if err = errors.Join(err, s.writeFile(r, filesIn(r.Dir).Hosts, hosts)); err != nil {
			s.Log.Warn("renew links", "container", r.ID, "error", err)
		}
	}
}
