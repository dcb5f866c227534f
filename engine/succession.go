package engine

import (
	"context"
	"errors"
	"fmt"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"davit/engine/container"
	"davit/network"
	"davit/oci/errdefs"
)

// A container takes over from another in these steps, which its Succession keeps over a crash:
//
//	trying   its record, with the Succession, is there before anything else; it runs under another name,
//	         without ports. A crash: withdraw
//	moved    recorded for both containers at once, then names and ports move (network.HandOver, which
//	         may be done again). A crash: hand over again, then retire
//	retired  the old one is drained, stopped, and removed or kept; the Succession goes from the record

// handOver moves name, aliases and ports from the old container to the one that succeeds it. After an
// error everything is where it was.
func (l *lifecycle) handOver(ctx context.Context, next *actor) error {
	end, err := next.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	s := next.record().Succeeds
	old, err := l.roster.find(s.Old)
	if err != nil {
		return fmt.Errorf("the old container went away: %w", err)
	}
	// Nobody but this takes a second turn, so nobody can wait for the first in the other's turn.
	endOld, err := old.begin(ctx)
	if err != nil {
		return err
	}
	defer endOld()
	before, beforeOld := next.record(), old.record()
	switch {
	case !before.State.Status.Alive():
		return errors.New("the new container ended")
	case beforeOld.Name != s.Name:
		return errdefs.Conflict("the old container was renamed to %s meanwhile", beforeOld.Name)
	case beforeOld.State.Status == container.Removing || beforeOld.State.Status == container.Removed:
		return errdefs.Conflict("the old container is being removed")
	}
	now := before.WithSuccession(func(s *container.Succession) { s.Moved = true })
	nowOld := beforeOld.Clone()
	now.Name, nowOld.Name = s.Name, s.OldName
	if err := l.roster.reserve(s.OldName, old.id); err != nil {
		return err
	}
	if err := l.moveAll(ctx, now, nowOld); err != nil {
		l.roster.release(s.OldName, old.id)
		return errors.Join(err, l.moveAll(ctx, beforeOld, before))
	}
	l.roster.rename(map[string]string{s.Name: next.id, s.OldName: old.id}, before.Name)
	l.publishMoved(next, now)
	l.publishMoved(old, nowOld)
	l.tell(nowOld, events.ActionRename, map[string]string{"oldName": "/" + s.Name})
	l.tell(now, events.ActionRename, map[string]string{"oldName": "/" + before.Name})
	return nil
}

// moveAll records the names that two containers have from now on, and gives what is known by the first
// one's name to it.
func (l *lifecycle) moveAll(ctx context.Context, now, old *container.Record) error {
	if err := l.journal.saveBoth(now, old); err != nil {
		return err
	}
	h, err := l.handover(now, old)
	if err != nil {
		return err
	}
	if err := l.Options.Networks.HandOver(ctx, h); err != nil {
		return err
	}
	if !now.State.Status.Alive() || !hasRelays(l.Options.Networks.ContainerEndpoints(now.ID)) {
		return nil
	}
	client, err := l.link.get(ctx)
	if err != nil {
		return err
	}
	return l.relay(ctx, client, now.ID) // which takes them from the other container
}

// handover says what names and ports the two containers have from now on. The old one keeps the name it
// has got, and no alias.
func (l *lifecycle) handover(now, old *container.Record) (network.Handover, error) {
	ports, err := portRequests(now)
	if err != nil {
		return network.Handover{}, err
	}
	h := network.Handover{From: old.ID, To: now.ID}
	order := networkOrder(now)
	outside := l.wayOut(order)
	for _, name := range order {
		q := l.endpointRequest(now, name, now.Endpoints[name])
		if name == outside {
			q.Ports = ports
		}
		h.ToNames = append(h.ToNames, q)
	}
	for _, name := range networkOrder(old) {
		q := l.endpointRequest(old, name, old.Endpoints[name])
		q.Aliases, q.DNSNames = nil, nil
		h.FromNames = append(h.FromNames, q)
	}
	return h, nil
}

// publishMoved publishes a record with the addresses and ports that its container has now; the caller has
// the turn.
func (l *lifecycle) publishMoved(a *actor, r *container.Record) {
	if r.State.Status.Alive() {
		r.State.Networks, r.State.Ports = l.settings(r)
	}
	a.publish(r)
}

// retire ends the old container once the new one has taken over, and with that the succession.
func (l *lifecycle) retire(ctx context.Context, next *actor, report func(string)) error {
	s := next.record().Succeeds
	replaced := map[string]string{"replaced": s.Old}
	if old, err := l.roster.find(s.Old); err == nil {
		replaced["replacedImage"] = old.record().Image.Name
		if err := l.retireOld(ctx, old, *s, report); err != nil {
			return err
		}
	}
	end, err := next.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	done := next.record().Clone()
	done.Succeeds = nil
	if err := l.journal.save(done); err != nil {
		return err
	}
	next.publish(done)
	l.tell(done, actionReplace, replaced)
	return nil
}

func (l *lifecycle) retireOld(ctx context.Context, old *actor, s container.Succession, report func(string)) error {
	report(fmt.Sprintf("waiting until connections to the old container end, %s at most", s.Drain))
	if err := l.drain(ctx, old, s.Drain); err != nil {
		return err
	}
	if err := l.Options.Networks.LetGo(old.id); err != nil {
		l.Log.Warn("connections that were not answered go on to the old container", "container", old.id, "error", err)
	}
	report("stopping the old container")
	if _, err := l.stop(ctx, old, StopOptions{}, true); err != nil {
		return err
	}
	end, err := old.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	r := old.record()
	switch {
	case r.State.Status == container.Removed:
		return nil
	case !s.Keep:
		return l.remove(ctx, old, r.AutoRemove())
	}
	// Its policy must not bring it up again: what it published is another's.
	kept, h := r.Clone(), *r.HostConfig
	h.RestartPolicy = wire.RestartPolicy{Name: wire.RestartPolicyDisabled}
	kept.HostConfig = &h
	if err := l.journal.save(kept); err != nil {
		return err
	}
	old.publish(kept)
	return nil
}

// withdraw removes a container that is not to take over after all, and has the old one run again if it was
// stopped for it.
func (l *lifecycle) withdraw(ctx context.Context, next *actor) error {
	s := next.record().Succeeds
	_, err := l.stop(ctx, next, StopOptions{Signal: "KILL"}, false)
	errs := []error{err, l.removeStopped(ctx, next)}
	if s.Resume {
		errs = append(errs, l.resumeOld(ctx, s.Old))
	}
	return errors.Join(errs...)
}

// removeStopped removes a container that does not run, unless that has happened already.
func (l *lifecycle) removeStopped(ctx context.Context, a *actor) error {
	end, err := a.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if a.record().State.Status == container.Removed {
		return nil
	}
	return l.remove(ctx, a, true)
}

func (l *lifecycle) resumeOld(ctx context.Context, id string) error {
	old, err := l.roster.find(id)
	if err != nil {
		return err
	}
	end, err := old.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := l.start(ctx, old); err != nil && !errors.Is(err, errdefs.ErrNotModified) {
		return fmt.Errorf("start the old container again: %w", err)
	}
	return nil
}

// renameSucceeded gives old containers the name that their successors' records say: of two records in
// files, the younger one may have been written alone.
func renameSucceeded(records []*container.Record) {
	byID := map[string]*container.Record{}
	for _, r := range records {
		byID[r.ID] = r
	}
	for _, r := range records {
		if r.Succeeds == nil || !r.Succeeds.Moved {
			continue
		}
		if old := byID[r.Succeeds.Old]; old != nil {
			old.Name = r.Succeeds.OldName
		}
	}
}

// successions finds what an engine that died has left unfinished: the containers that are not to be
// started for it, and what is to be done.
func (l *lifecycle) successions() (held map[string]bool, resume []func()) {
	held = map[string]bool{}
	for _, a := range l.roster.all() {
		s := a.record().Succeeds
		if s == nil {
			continue
		}
		if s.Moved {
			held[s.Old] = true
		} else {
			held[a.id] = true
		}
		resume = append(resume, func() { l.resume(a) })
	}
	return held, resume
}

// resume goes back, or on, with a succession.
func (l *lifecycle) resume(next *actor) {
	s := next.record().Succeeds
	if !s.Moved {
		l.Log.Warn("replace container: the engine died before the new one took over: going back", "container", s.Old, "name", s.Name)
		if err := l.withdraw(l.context, next); err != nil {
			l.Log.Error("remove the new container", "container", next.id, "error", err)
		}
		return
	}
	l.Log.Warn("replace container: the engine died after the new one took over: going on", "container", next.id, "name", s.Name)
	finish := func() {
		if err := l.retire(l.context, next, func(string) {}); err != nil {
			l.Log.Error("retire the old container", "container", s.Old, "error", err)
		}
	}
	if !next.record().State.Status.Alive() {
		finish() // before it is started, which needs the ports
		return
	}
	if err := l.moveAgain(next, s.Old); err != nil {
		l.Log.Error("move names and ports", "container", next.id, "error", err)
	}
	go finish()
}

// moveAgain hands over what may not have moved before the engine died.
func (l *lifecycle) moveAgain(next *actor, id string) error {
	old, err := l.roster.find(id)
	if err != nil {
		return nil // it is gone, and so are its ports
	}
	end, err := next.begin(l.context)
	if err != nil {
		return err
	}
	defer end()
	endOld, err := old.begin(l.context)
	if err != nil {
		return err
	}
	defer endOld()
	now, nowOld := next.record().Clone(), old.record().Clone()
	err = l.moveAll(l.context, now, nowOld)
	l.publishMoved(next, now)
	l.publishMoved(old, nowOld)
	return err
}
