package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"davit/network/ipam"
)

// config is what flags and the configuration file say.
type config struct {
	hosts                        []string
	dataRoot, execRoot           string
	pidfile, configFile          string
	logLevel                     string
	debug, showVersion           bool
	insecure, mirrors, labels    []string
	bridge, bip, ip              string
	icc                          bool
	mtu                          int
	pools                        []ipam.Pool
	dns, dnsSearch, dnsOptions   []string
	storageOptions, execOptions  []string
	cgroupParent                 string
	userns                       string
	liveRestore                  bool
	tls, tlsVerify               bool
	tlsCA, tlsCert, tlsKey       string
	logDriver                    string
	logOptions                   []string
	group, runtimeBinary         string
	storageDriver, iptables      string
	ipForward, ipMasq, userProxy bool
}

const defaultConfigFile = "/etc/davit/davitd.json"

// list is a flag that may be given several times.
type list struct{ to *[]string }

func (l list) String() string { return "" }

func (l list) Set(value string) error {
	*l.to = append(*l.to, value)
	return nil
}

// pools is the flag --default-address-pool, "base=10.0.0.0/8,size=24".
type pools struct{ to *[]ipam.Pool }

func (p pools) String() string { return "" }

func (p pools) Set(value string) error {
	pool := ipam.Pool{}
	for part := range strings.SplitSeq(value, ",") {
		name, v, _ := strings.Cut(part, "=")
		var err error
		switch name {
		case "base":
			pool.Base, err = netip.ParsePrefix(v)
		case "size":
			pool.Size, err = strconv.Atoi(v)
		default:
			return fmt.Errorf("unknown field %q: want base=ADDRESS/BITS,size=BITS", name)
		}
		if err != nil {
			return err
		}
	}
	if !pool.Base.IsValid() || pool.Size < pool.Base.Bits() {
		return fmt.Errorf("%q: want base=ADDRESS/BITS,size=BITS", value)
	}
	*p.to = append(*p.to, pool)
	return nil
}

// flags binds every flag to its place in the configuration.
func flags(c *config, out io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet("davitd", flag.ContinueOnError)
	f.SetOutput(out)
	text := func(to *string, otherwise, usage string, names ...string) {
		for _, name := range names {
			f.StringVar(to, name, otherwise, usage)
		}
	}
	many := func(to *[]string, usage string, names ...string) {
		for _, name := range names {
			f.Var(list{to}, name, usage)
		}
	}
	many(&c.hosts, "socket to listen on: unix://PATH, tcp://HOST:PORT or fd:// (repeatable)", "host", "H")
	text(&c.dataRoot, "/var/lib/davit", "directory of everything that lasts", "data-root", "g")
	text(&c.execRoot, "/run/davit", "directory of what is gone at reboot", "exec-root")
	text(&c.pidfile, "", "file to write the process id to", "pidfile", "p")
	text(&c.configFile, defaultConfigFile, "configuration file", "config-file")
	text(&c.logLevel, "info", "debug, info, warn or error", "log-level", "l")
	f.BoolVar(&c.debug, "debug", false, "log more")
	f.BoolVar(&c.debug, "D", false, "log more")
	f.BoolVar(&c.showVersion, "version", false, "print the version and quit")
	f.BoolVar(&c.showVersion, "v", false, "print the version and quit")
	many(&c.insecure, "registry without a certificate to trust, or its addresses as a CIDR (repeatable)", "insecure-registry")
	many(&c.mirrors, "mirror of Docker Hub, or HOST=URL of that registry, or *=URL of all; tried in order, then the registry itself (repeatable)", "registry-mirror")
	many(&c.labels, "label of this engine (repeatable)", "label")
	networkFlags(c, f, text, many)
	many(&c.storageOptions, "accepted for dockerd's sake (repeatable)", "storage-opt")
	text(&c.storageDriver, "", "overlay2, or nothing", "storage-driver", "s")
	many(&c.execOptions, "native.cgroupdriver=cgroupfs|systemd (repeatable)", "exec-opt")
	text(&c.cgroupParent, "/davit", "parent of the containers' control groups", "cgroup-parent")
	text(&c.userns, "private", "private: a user namespace for each container; host: for none", "userns-remap")
	f.BoolVar(&c.liveRestore, "live-restore", true, "containers outlive the engine; they always do")
	f.BoolVar(&c.tls, "tls", false, "use TLS on tcp sockets")
	f.BoolVar(&c.tlsVerify, "tlsverify", false, "use TLS and ask clients for a certificate")
	text(&c.tlsCA, "", "authority that clients' certificates are signed by", "tlscacert")
	text(&c.tlsCert, "", "certificate", "tlscert")
	text(&c.tlsKey, "", "key of the certificate", "tlskey")
	text(&c.logDriver, "json-file", "json-file, local or none", "log-driver")
	many(&c.logOptions, "option of the log driver, max-size=10m or max-file=3 (repeatable)", "log-opt")
	text(&c.group, "", "group that may use the unix sockets; docker or davit if there is one", "group", "G")
	text(&c.runtimeBinary, "", "davit-oci; the one beside davitd, or in PATH", "oci-binary")
	return f
}

func networkFlags(c *config, f *flag.FlagSet, text func(*string, string, string, ...string), many func(*[]string, string, ...string)) {
	text(&c.bridge, "", "device of the default network, made if missing; davit0; none: there is no default network", "bridge", "b")
	text(&c.bip, "", "address of that device, ADDRESS/BITS", "bip")
	text(&c.ip, "", "default host address of published ports", "ip")
	f.BoolVar(&c.icc, "icc", true, "containers on the default network reach each other")
	f.IntVar(&c.mtu, "mtu", 0, "MTU of the default network")
	f.Var(pools{&c.pools}, "default-address-pool", "where networks' subnets come from, base=10.0.0.0/8,size=24 (repeatable)")
	many(&c.dns, "name server of containers (repeatable)", "dns")
	many(&c.dnsSearch, "search domain of containers (repeatable)", "dns-search")
	many(&c.dnsOptions, "option of containers' resolv.conf (repeatable)", "dns-opt")
	text(&c.iptables, "true", "accepted for dockerd's sake: rules are made with nftables", "iptables")
	f.BoolVar(&c.ipForward, "ip-forward", true, "accepted for dockerd's sake")
	f.BoolVar(&c.ipMasq, "ip-masq", true, "accepted for dockerd's sake")
	f.BoolVar(&c.userProxy, "userland-proxy", false, "accepted for dockerd's sake: there is no proxy")
}

// parse reads the flags, and then the configuration file for what they do not say.
func parse(args []string, out io.Writer) (config, error) {
	c := config{}
	f := flags(&c, out)
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	given := map[string]bool{}
	f.Visit(func(g *flag.Flag) { given[g.Name] = true })
	if err := readFile(f, c.configFile, given); err != nil {
		return c, err
	}
	return c, complete(&c)
}

// readFile sets flags from a JSON object of their names, lists under their plural as in daemon.json.
func readFile(f *flag.FlagSet, path string, given map[string]bool) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !given["config-file"] {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	values := map[string]any{}
	if err := json.Unmarshal(b, &values); err != nil {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		name := flagOf(key)
		if f.Lookup(name) == nil {
			return fmt.Errorf("read configuration %s: the following directives don't match any configuration option: %s", path, key)
		}
		if given[name] || given[shortOf(name)] {
			return fmt.Errorf("read configuration %s: the following directives are specified both as a flag and in the configuration file: %s", path, key)
		}
		for _, text := range texts(values[key]) {
			if err := f.Set(name, text); err != nil {
				return fmt.Errorf("read configuration %s: %s: %w", path, key, err)
			}
		}
	}
	return nil
}

// flagOf is the flag of a directive: lists have the flag's plural.
func flagOf(key string) string {
	switch key {
	case "insecure-registries":
		return "insecure-registry"
	case "hosts", "labels", "storage-opts", "exec-opts", "log-opts", "dns-opts", "registry-mirrors", "default-address-pools":
		return strings.TrimSuffix(key, "s")
	}
	return key
}

func shortOf(name string) string {
	return map[string]string{
		"host": "H", "data-root": "g", "pidfile": "p", "log-level": "l", "debug": "D", "bridge": "b", "group": "G", "storage-driver": "s",
	}[name]
}

// texts are a directive's values as flags take them.
func texts(value any) []string {
	switch v := value.(type) {
	case []any:
		var all []string
		for _, item := range v {
			all = append(all, texts(item)...)
		}
		return all
	case map[string]any:
		var pairs []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			for _, text := range texts(v[key]) {
				pairs = append(pairs, key+"="+text)
			}
		}
		if _, pool := v["base"]; pool {
			return []string{strings.Join(pairs, ",")}
		}
		return pairs
	}
	return []string{fmt.Sprint(value)}
}

// complete checks what the flags' own types cannot.
func complete(c *config) error {
	for _, dir := range []*string{&c.dataRoot, &c.execRoot} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
	}
	if len(c.hosts) == 0 {
		c.hosts = []string{"unix://" + filepath.Join(c.execRoot, "davit.sock")}
	}
	if c.tlsVerify {
		c.tls = true
	}
	if !slices.Contains([]string{"private", "default", "auto", "require", "host", ""}, c.userns) {
		return fmt.Errorf("--userns-remap %q: each container has an id range of its own; private, auto, require or host are understood", c.userns)
	}
	if !slices.Contains([]string{"", "overlay2", "overlayfs"}, c.storageDriver) {
		return fmt.Errorf("--storage-driver %q: overlay2 is the only one", c.storageDriver)
	}
	if driver := c.cgroupDriver(); driver != "cgroupfs" && driver != "systemd" {
		return fmt.Errorf("--exec-opt native.cgroupdriver=%s: cgroupfs and systemd are the cgroup drivers", driver)
	}
	if !slices.Contains([]string{"json-file", "local", "none"}, c.logDriver) {
		return fmt.Errorf("--log-driver %q: json-file, local and none are served", c.logDriver)
	}
	return nil
}

// monitorArgs are what the monitor has to know of --exec-opt.
func (c config) monitorArgs() []string {
	if c.cgroupDriver() == "systemd" {
		return []string{"--systemd-cgroup"}
	}
	return nil
}

// cgroupDriver is what --exec-opt says.
func (c config) cgroupDriver() string {
	for _, o := range c.execOptions {
		if v, ok := strings.CutPrefix(o, "native.cgroupdriver="); ok {
			return v
		}
	}
	return "cgroupfs"
}
