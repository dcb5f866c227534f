package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"davit/engine/container"
	"davit/network"
	"davit/oci/errdefs"
	"davit/task"
)

// load fills the roster with the records there are.
func (l *lifecycle) load() error {
	records, err := l.journal.load()
	if err != nil {
		return err
	}
	renameSucceeded(records)
	for _, r := range records {
		if r.UserNS.Mode == container.UserPrivate {
			l.ids.claim(r.UserNS.Base)
		}
		l.roster.add(newActor(r))
	}
	return nil
}

// reconcile makes records and running tasks agree: the monitor may have outlived the engine, or the
// host may have been rebooted.
func (l *lifecycle) reconcile(ctx context.Context) error {
	tasks := map[string]task.State{}
	client, err := l.monitor(ctx)
	switch {
	case err == nil:
		states, err := client.List(ctx)
		if err != nil {
			return fmt.Errorf("list tasks: %w", err)
		}
		for _, s := range states {
			tasks[s.ID] = s
		}
	case !errors.Is(err, errdefs.ErrUnavailable):
		return err
	}
	held, late := l.successions()
	for _, a := range l.roster.all() {
		s, exists := tasks[a.id]
		delete(tasks, a.id)
		if then := l.settle(a, s, exists, held[a.id]); then != nil {
			late = append(late, then)
		}
	}
	for id := range tasks {
		if client != nil {
			l.deleteTask(client, id)
		}
	}
	if err := l.reconcileNetworks(ctx); err != nil {
		return err
	}
	late = append(late, l.sweep())
	l.followFromNowOn(client)
	go func() {
		for _, f := range late {
			f()
		}
	}()
	return nil
}

// monitor reaches the monitor. One that was killed left its containers running: if there should be any,
// a new one is launched, which adopts them.
func (l *lifecycle) monitor(ctx context.Context) (*task.Client, error) {
	for _, a := range l.roster.all() {
		if s := a.record().State.Status; up(s) || s == container.Restarting {
			return l.link.get(ctx)
		}
	}
	return l.link.find(ctx)
}

// followFromNowOn follows this connection and every later one.
func (l *lifecycle) followFromNowOn(client *task.Client) {
	if client != nil {
		go l.follow(client)
	}
	l.link.connected = func(c *task.Client) {
		go l.follow(c)
		go l.watchLoss(c)
		go l.relayAll(c)
	}
	if client != nil {
		l.relayAll(client)
		go l.watchLoss(client)
	}
}

// watchLoss reconnects when the connection to the monitor is lost though the engine goes on. If the
// monitor itself is gone, a new one adopts its containers; only if none can be had are they given up.
func (l *lifecycle) watchLoss(c *task.Client) {
	select {
	case <-l.context.Done():
		return
	case <-c.Done():
	}
	if l.context.Err() != nil {
		return
	}
	_, err := l.monitor(l.context)
	if err == nil {
		return
	}
	l.Log.Error("the monitor is gone, and all running containers with it", "error", err)
	for _, a := range l.roster.all() {
		if r := a.record(); r.State.Status.Alive() {
			l.onExit(a, task.State{ID: a.id, Status: task.StatusStopped, StartedAt: r.State.StartedAt, ExitedAt: l.Now(), ExitCode: 255})
		}
	}
}

// settle brings one record up to date. What takes long is returned, to be done later. A held container is
// not to be started.
func (l *lifecycle) settle(a *actor, s task.State, exists, held bool) func() {
	r := a.record()
	alive := exists && (s.Status == task.StatusRunning || s.Status == task.StatusPaused)
	switch {
	case r.State.Status == container.Removing || r.State.Status == container.Dead:
		return func() { l.resumeRemoval(a) }
	case alive:
		l.adopt(a, r, s)
		return func() { l.watchHealth(a, a.record()) }
	case exists && r.State.Status.Alive():
		return nil // it ended meanwhile: the monitor's event is on its way
	case exists:
		return func() { l.orphan(s) }
	}
	return l.settleDown(a, r, held)
}

// adopt publishes a container as running, as the monitor has it.
func (l *lifecycle) adopt(a *actor, r *container.Record, s task.State) {
	up := r.Clone()
	up.State.Status = container.Running
	if s.Status == task.StatusPaused {
		up.State.Status = container.Paused
	}
	up.State.Pid, up.State.Cgroup, up.State.StartedAt = s.Pid, s.Cgroup, s.StartedAt.UTC()
	up.State.FinishedAt = time.Time{}
	up.State.Networks, up.State.Ports = l.settings(r)
	a.publish(up)
}

// settleDown is settle for a container without a task.
func (l *lifecycle) settleDown(a *actor, r *container.Record, held bool) func() {
	again := container.StartAtBoot(r.HostConfig.RestartPolicy, r.State)
	if s := r.State.Status; s.Alive() || s == container.Starting || s == container.Restarting {
		down := r.Clone()
		down.State.Status, down.State.Pid, down.State.Networks, down.State.Ports = container.Exited, 0, nil, nil
		if s.Alive() {
			down.State.ExitCode, down.State.FinishedAt = 255, l.Now().UTC()
		}
		a.publish(down)
		l.journal.saveLater(down)
	}
	switch {
	case held:
		return nil
	case r.AutoRemove():
		return func() { l.resumeRemoval(a) }
	case again:
		return func() { l.startAgain(a) }
	}
	return nil
}

func (l *lifecycle) resumeRemoval(a *actor) {
	end, err := a.begin(l.context)
	if err != nil {
		return
	}
	defer end()
	if err := l.remove(l.context, a, a.record().AutoRemove()); err != nil {
		l.Log.Error("remove container", "container", a.id, "error", err)
	}
}

func (l *lifecycle) startAgain(a *actor) {
	end, err := a.begin(l.context)
	if err != nil {
		return
	}
	defer end()
	if err := l.start(l.context, a); err != nil {
		l.Log.Error("start container", "container", a.id, "error", err)
	}
}

// reconcileNetworks ends the endpoints of containers that are gone.
func (l *lifecycle) reconcileNetworks(ctx context.Context) error {
	var live []network.Sandbox
	for _, a := range l.roster.all() {
		r := a.record()
		if !r.State.Status.Alive() || r.State.Pid == 0 || r.HostConfig.NetworkMode.IsHost() {
			continue
		}
		netns, err := openNamespace(r.State.Pid, "net")
		if err != nil {
			continue // it ended this moment; its exit is handled next
		}
		defer netns.Close()
		live = append(live, network.Sandbox{ContainerID: r.ID, NetNS: netns, DNS: r.HostConfig.DNS})
	}
	if err := l.Options.Networks.Reconcile(ctx, live); err != nil {
		return fmt.Errorf("reconcile networks: %w", err)
	}
	// Addresses and ports are known only now.
	for _, a := range l.roster.all() {
		if r := a.record(); r.State.Status.Alive() {
			up := r.Clone()
			up.State.Networks, up.State.Ports = l.settings(r)
			a.publish(up)
		}
	}
	return nil
}
