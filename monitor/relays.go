package monitor

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"

	"davit/monitor/relay"
	"davit/oci/errdefs"
	"davit/task"
)

// relay makes a task's relays what the request says. Its files are the new ones' sockets, in order. A
// relay that another task has moves here, with connections that wait in its socket.
func (m *Monitor) relay(r task.RelayRequest, files []*os.File) error {
	c, err := m.find(r.Task)
	if err != nil {
		return err
	}
	moved := m.moveRelays(c, r.Relays)
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.Copy(c.relays, moved)
	if c.state.Status == task.StatusStopped {
		return errdefs.Conflict("task %s is stopped", r.Task)
	}
	var errs []error
	keep := map[relayKey]bool{}
	for _, one := range r.Relays {
		key := relayKey{one.Proto, one.Host}
		keep[key] = true
		var socket *os.File
		if one.Socket && len(files) > 0 {
			socket, files = files[0], files[1:]
		}
		if known, ok := c.relays[key]; ok {
			known.Redirect(one.To)
			continue
		}
		errs = append(errs, c.addRelay(key, socket, one.To))
	}
	for key, old := range c.relays {
		if !keep[key] && !r.Keep {
			errs = append(errs, old.Close())
			delete(c.relays, key)
		}
	}
	return errors.Join(errs...)
}

// moveRelays takes relays from other tasks than c, for it.
func (m *Monitor) moveRelays(c *container, wanted []task.Relay) map[relayKey]*relay.Relay {
	moved := map[relayKey]*relay.Relay{}
	for _, other := range m.all() {
		if other == c {
			continue
		}
		other.mu.Lock()
		for _, one := range wanted {
			key := relayKey{one.Proto, one.Host}
			if r, ok := other.relays[key]; ok {
				moved[key] = r
				delete(other.relays, key)
			}
		}
		other.mu.Unlock()
	}
	return moved
}

// relayKey is the host's end of a relay.
type relayKey struct {
	proto string
	host  netip.AddrPort
}

func (c *container) addRelay(key relayKey, socket *os.File, to netip.AddrPort) error {
	if socket == nil {
		return errdefs.NotFound("no relay on %s", key.host)
	}
	added, err := relay.Serve(socket, to)
	if err != nil {
		return err
	}
	c.relays[key] = added
	return nil
}

// closeRelays ends a task's relays with it.
func (m *Monitor) closeRelays(c *container) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, r := range c.relays {
		if err := r.Close(); err != nil {
			m.log.Warn("close relay", "task", c.id, "host", key.host, "error", err)
		}
	}
	clear(c.relays)
}

// allRelays returns the relays of all tasks.
func (m *Monitor) allRelays() []*relay.Relay {
	var all []*relay.Relay
	for _, c := range m.all() {
		c.mu.Lock()
		all = slices.AppendSeq(all, maps.Values(c.relays))
		c.mu.Unlock()
	}
	return all
}

// relayState is a relay on its way to the program of an upgrade.
type relayState struct {
	relay.State
	Proto string         `json:"proto"`
	Host  netip.AddrPort `json:"host"`
}

// passRelays is called with c.mu held.
func (c *container) passRelays() ([]relayState, error) {
	var all []relayState
	for key, r := range c.relays {
		state, err := r.Pass()
		if err != nil {
			return all, fmt.Errorf("hand over relay on %s: %w", key.host, err)
		}
		all = append(all, relayState{state, key.proto, key.host})
	}
	return all, nil
}

func (c *container) takeRelays(states []relayState) error {
	var errs []error
	for _, s := range states {
		r, err := relay.Take(s.State)
		errs = append(errs, err)
		if r == nil {
			continue
		}
		if c.relays == nil {
			c.relays = map[relayKey]*relay.Relay{}
		}
		c.relays[relayKey{s.Proto, s.Host}] = r
	}
	return errors.Join(errs...)
}
