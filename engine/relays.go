package engine

import (
	"context"
	"slices"

	"davit/network"
	"davit/task"
)

// relay tells the monitor which sockets of the host it is to serve for a container: published ports for
// clients that come by IPv6 and that the kernel cannot lead there.
func (s *shared) relay(ctx context.Context, client *task.Client, id string) error {
	relays, err := s.Options.Networks.Relays(id)
	defer closeSockets(relays)
	if err != nil {
		return err
	}
	list := make([]task.Relay, len(relays))
	for i, r := range relays {
		list[i] = task.Relay{Proto: r.Proto, Host: r.Host, To: r.To, File: r.Socket}
	}
	return client.Relay(ctx, id, list)
}

func closeSockets(relays []network.Relay) {
	for _, r := range relays {
		if r.Socket != nil {
			r.Socket.Close()
		}
	}
}

// hasRelays says whether any endpoint may need one, without asking the kernel.
func hasRelays(endpoints []endpoint) bool { return slices.ContainsFunc(endpoints, endpoint.Relayed) }

// relayAll does so for all running containers, with a monitor that may be new.
func (l *lifecycle) relayAll(client *task.Client) {
	for _, a := range l.roster.all() {
		if !a.record().State.Status.Alive() || !hasRelays(l.Options.Networks.ContainerEndpoints(a.id)) {
			continue
		}
		if err := l.relay(l.context, client, a.id); err != nil {
			l.Log.Warn("published ports are not reachable by IPv6", "container", a.id, "error", err)
		}
	}
}
