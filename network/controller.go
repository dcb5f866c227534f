package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"davit/network/bridge"
	"davit/network/firewall"
	"davit/network/ipam"
	"davit/store/metadata"
)

// Options of a Controller.
type Options struct {
	DB         *metadata.DB // durable records; the table is "networks"
	RunDir     string       // gone at reboot; made if missing
	Log        *slog.Logger // nil: silence
	Bridge     string       // device of the default network; empty: "davit0"; "none": there is no default network
	BIP        netip.Prefix // its address and prefix length; zero: from Pools
	BIP6       netip.Prefix // its IPv6 address; zero: no IPv6 on the default network
	MTU        int          // of the default network's devices; 0: 1500
	Pools      []ipam.Pool  // where subnets come from; nil: ipam.DefaultPools
	HostIP     netip.Addr   // default host address of published ports (--ip); zero: all
	DisableICC bool         // of the default network (--icc=false)
	DNS        []netip.Addr // default servers of the name server (--dns)
	ResolvConf string       // where the host's servers are; empty: /etc/resolv.conf
	// NoForwardDrop leaves the host a router for everybody when the engine had to switch routing on
	// (--ip-forward-no-drop); otherwise only the engine's own traffic is routed then.
	NoForwardDrop bool
}

// defaults fills what was left zero.
func (o Options) defaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.Bridge == "" {
		o.Bridge = "davit0"
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.Pools == nil {
		o.Pools = ipam.DefaultPools()
	}
	if o.ResolvConf == "" {
		o.ResolvConf = "/etc/resolv.conf"
	}
	return o
}

// table names the nft table, so that engines with bridges of different names can share a host.
func (o Options) table() string {
	if o.Bridge == "davit0" || o.Bridge == "none" {
		return "davit"
	}
	return "davit-" + o.Bridge
}

// Controller owns the networks of one engine. Its methods may be called concurrently; calls about one
// container must come one after another.
type Controller struct {
	opts    Options
	log     *slog.Logger
	book    *book
	ports   *portTable
	files   files
	devices *bridge.Driver
	rules   *firewall.Firewall
	others  atomic.Pointer[firewall.Others] // the host's firewalls as they were last seen
	watch   *firewall.Watch
}

// Open loads the networks, makes what is missing in the kernel (devices, rules) and the predefined
// networks. What runs goes on undisturbed. Call Reconcile next.
func Open(ctx context.Context, opts Options) (*Controller, error) {
	opts = opts.defaults()
	c := &Controller{opts: opts, log: opts.Log, book: newBook(), ports: newPortTable(opts.Log), files: files(filepath.Join(opts.RunDir, "endpoints"))}
	if err := os.MkdirAll(string(c.files), 0o700); err != nil {
		return nil, fmt.Errorf("make network directory: %w", err)
	}
	var err error
	if c.devices, err = bridge.Open(); err != nil {
		return nil, err
	}
	if c.rules, err = firewall.Open(opts.table()); err != nil {
		return nil, errors.Join(err, c.devices.Close())
	}
	if c.watch, err = c.rules.Watch(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.load(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.watch.Start(c.coexist)
	return c, nil
}

// Close ends the name servers. Devices, rules and published ports stay.
func (c *Controller) Close() error {
	errs := []error{c.watch.Close(), c.book.closeServers(), c.rules.Close(), c.devices.Close()}
	c.ports.close()
	return errors.Join(errs...)
}

// load fills the book from the records, and the kernel from the book.
func (c *Controller) load(ctx context.Context) error {
	stored, err := loadNetworks(c.opts.DB)
	if err != nil {
		return err
	}
	endpoints, err := c.files.load()
	if err != nil {
		return err
	}
	for _, n := range stored {
		if err := c.book.add(n); err != nil {
			return fmt.Errorf("load network %s: %w", n.Name, err)
		}
	}
	if err := c.predefine(ctx, len(endpoints) == 0); err != nil {
		return err
	}
	// An engine that died in HandOver left two claims on the same ports: the younger one counts.
	slices.SortStableFunc(endpoints, func(x, y Endpoint) int { return cmp.Compare(age(x), age(y)) })
	for _, e := range endpoints {
		if err := c.book.restore(e); err != nil {
			c.log.Warn("forget endpoint", "container", e.ContainerID, "network", e.NetworkName, "error", err)
			continue
		}
		ports := c.ports.restore(e)
		c.book.update(e.ContainerID, e.ID, func(x *Endpoint) { x.Ports = ports })
	}
	return c.materialize()
}

// materialize gives the kernel what the book says: devices, routing, rules.
func (c *Controller) materialize() error {
	var nets []firewall.Net
	v6 := false
	for _, n := range c.book.networks() {
		if n.Driver != DriverBridge {
			continue
		}
		if err := c.devices.Ensure(n.device()); err != nil {
			return fmt.Errorf("make bridge of network %s: %w", n.Name, err)
		}
		nets = append(nets, n.rules())
		v6 = v6 || n.EnableV6
	}
	if len(nets) > 0 {
		if err := c.route(v6); err != nil {
			return err
		}
	}
	if err := c.rules.Apply(nets, c.book.mappings()); err != nil {
		return err
	}
	c.coexist()
	return nil
}

// coexist adapts to other firewalls of the host. What fails there is theirs, and stops nothing here.
func (c *Controller) coexist() {
	others, err := c.rules.Coexist()
	if err != nil {
		c.log.Warn("adapt to the host's firewall", "error", err)
	}
	if was := c.others.Swap(&others); was != nil && was.UFW == others.UFW && was.Firewalld == others.Firewalld {
		return
	}
	if others.Firewalld {
		c.log.Info("firewalld is active: published ports are open from outside where a zone opens the host's port")
	}
	if others.UFW {
		c.log.Info("ufw is active: published ports are open from outside where ufw allows the host's port")
	}
}

// route makes the host a router. When it was none, the rules keep it one for containers alone.
func (c *Controller) route(v6 bool) error {
	changed, err := bridge.Forwarding(v6)
	if err != nil {
		return err
	}
	marker := filepath.Join(c.opts.RunDir, "routing-by-davit")
	if changed && !c.opts.NoForwardDrop {
		if err := os.WriteFile(marker, nil, 0o600); err != nil {
			return fmt.Errorf("note that davit switched routing on: %w", err)
		}
	}
	_, err = os.Stat(marker)
	return c.rules.OnlyOwn(err == nil && !c.opts.NoForwardDrop)
}

// HostGateway is the address that the name host-gateway stands for in --add-host: the host's on the
// default network. Zero without one.
func (c *Controller) HostGateway() netip.Addr {
	n, err := c.Get(NameBridge)
	if err != nil {
		return netip.Addr{}
	}
	for _, s := range n.Subnets {
		if s.Gateway.Is4() {
			return s.Gateway
		}
	}
	return netip.Addr{}
}
