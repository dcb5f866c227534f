package network

import (
	"context"
	"errors"
	"fmt"

	"davit/kernel/sys"
	"davit/network/dns"
)

// Reconcile ends the endpoints of containers that are not in live, removes veth devices that nobody
// owns, and opens the name servers of live containers again.
func (c *Controller) Reconcile(ctx context.Context, live []Sandbox) error {
	running := map[string]bool{}
	for _, s := range live {
		running[s.ContainerID] = true
	}
	var errs []error
	for _, id := range c.book.containers() {
		if !running[id] {
			errs = append(errs, c.Detach(ctx, id))
		}
	}
	owned := map[string]bool{}
	for _, s := range live {
		for _, e := range c.book.attached(s.ContainerID) {
			owned[e.Veth] = true
		}
		errs = append(errs, c.reopen(s))
	}
	var bridges []string
	for _, n := range c.book.networks() {
		bridges = append(bridges, n.Bridge)
	}
	gone, err := c.devices.Orphans(bridges, func(veth string) bool { return owned[veth] })
	if len(gone) > 0 {
		c.log.Info("removed devices that nobody owns", "devices", gone)
	}
	return errors.Join(append(errs, err)...)
}

// reopen starts the name server of a live container again.
func (c *Controller) reopen(s Sandbox) error {
	wanted := false
	for _, e := range c.book.attached(s.ContainerID) {
		if n, err := c.book.get(e.NetworkID); err == nil && n.NameService() {
			wanted = true
		}
		if len(s.DNS) == 0 {
			s.DNS = e.DNS
		}
	}
	if !wanted || c.book.hasServer(s.ContainerID) {
		return nil
	}
	var sockets dns.Sockets
	err := sys.InNetNS(s.NetNS.Fd(), func() (err error) {
		sockets, err = dns.Listen()
		return err
	})
	if err != nil {
		return fmt.Errorf("reopen name server of container %s: %w", s.ContainerID, err)
	}
	c.serve(s, sockets)
	return nil
}
