package container

import (
	"errors"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"davit/oci/errdefs"
)

func TestNextRefusesWhatDoesNotFit(t *testing.T) {
	for _, c := range []struct {
		from Status
		e    Event
		to   Status // empty: refused
	}{
		{Created, EventStart, Starting},
		{Starting, EventStarted, Running},
		{Running, EventPause, Paused},
		{Running, EventStart, ""},
		{Paused, EventStart, ""},
		{Running, EventRemove, ""},
		{Restarting, EventRemove, Removing},
		{Removed, EventStart, ""},
		{Exited, EventUnpause, ""},
	} {
		to, err := c.from.Next(c.e)
		if c.to == "" {
			if !errors.Is(err, errdefs.ErrConflict) {
				t.Errorf("%s %s: got %s, %v; want a conflict", c.from, c.e, to, err)
			}
			continue
		}
		if err != nil || to != c.to {
			t.Errorf("%s %s: got %s, %v; want %s", c.from, c.e, to, err, c.to)
		}
	}
}

func TestEveryStateCanEnd(t *testing.T) {
	reaches := map[Status]bool{Removed: true}
	for range transitions {
		for from, to := range transitions {
			reaches[from.from] = reaches[from.from] || reaches[to]
		}
	}
	for from := range transitions {
		if !reaches[from.from] {
			t.Errorf("no way leads from %s to its removal", from.from)
		}
	}
}

func TestApplyLeavesTheOldRecord(t *testing.T) {
	r := &Record{State: State{Status: Created}}
	next, err := r.Apply(EventStart, func(s *State) { s.Pid = 7 })
	if err != nil {
		t.Fatal(err)
	}
	if r.State.Status != Created || r.State.Pid != 0 || next.State.Status != Starting || next.State.Pid != 7 {
		t.Errorf("old %+v, new %+v", r.State, next.State)
	}
}

func TestDecide(t *testing.T) {
	began := time.Unix(1000, 0)
	after := func(ran time.Duration, code, restarts int, backoff time.Duration) State {
		return State{StartedAt: began, FinishedAt: began.Add(ran), ExitCode: code, RestartCount: restarts, Backoff: backoff}
	}
	always := container.RestartPolicy{Name: container.RestartPolicyAlways}
	twice := container.RestartPolicy{Name: container.RestartPolicyOnFailure, MaximumRetryCount: 2}
	stopped := after(time.Second, 1, 0, 0)
	stopped.Stopped = true
	for name, c := range map[string]struct {
		policy container.RestartPolicy
		state  State
		want   Decision
	}{
		"no policy":              {container.RestartPolicy{}, after(time.Second, 1, 0, 0), Decision{}},
		"always, first":          {always, after(time.Second, 0, 0, 0), Decision{true, 100 * time.Millisecond}},
		"always, again":          {always, after(time.Second, 0, 1, 100*time.Millisecond), Decision{true, 200 * time.Millisecond}},
		"always, at most":        {always, after(time.Second, 0, 9, 50*time.Second), Decision{true, time.Minute}},
		"always, ran for long":   {always, after(time.Minute, 0, 9, 50*time.Second), Decision{true, 100 * time.Millisecond}},
		"always, but stopped":    {always, stopped, Decision{}},
		"on failure, success":    {twice, after(time.Second, 0, 0, 0), Decision{}},
		"on failure, last try":   {twice, after(time.Second, 3, 1, 100*time.Millisecond), Decision{true, 200 * time.Millisecond}},
		"on failure, no more":    {twice, after(time.Second, 3, 2, 100*time.Millisecond), Decision{}},
		"unless stopped, stands": {container.RestartPolicy{Name: container.RestartPolicyUnlessStopped}, stopped, Decision{}},
	} {
		if got := Decide(c.policy, c.state); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func TestStartAtBoot(t *testing.T) {
	stopped := State{Status: Exited, StartedAt: time.Unix(1, 0), Stopped: true}
	up := State{Status: Running, StartedAt: time.Unix(1, 0)}
	for name, c := range map[string]struct {
		policy container.RestartPolicyMode
		state  State
		want   bool
	}{
		"always, stopped by hand":         {container.RestartPolicyAlways, stopped, true},
		"unless-stopped, stopped by hand": {container.RestartPolicyUnlessStopped, stopped, false},
		"unless-stopped, was up":          {container.RestartPolicyUnlessStopped, up, true},
		"on-failure, was up":              {container.RestartPolicyOnFailure, up, true},
		"no, was up":                      {container.RestartPolicyDisabled, up, false},
		"always, never started":           {container.RestartPolicyAlways, State{Status: Created}, false},
	} {
		if got := StartAtBoot(container.RestartPolicy{Name: c.policy}, c.state); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
