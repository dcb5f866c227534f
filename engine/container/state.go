package container

import (
	"davit/oci/errdefs"
)

// Status is where a container is in its life. Docker's booleans (Running, Paused, Restarting, Dead) are
// computed from it.
type Status string

// The states, with Docker's names where Docker shows them.
const (
	Created    Status = "created"
	Starting   Status = "starting" // its task is being made; shown as created or exited before
	Running    Status = "running"
	Paused     Status = "paused"
	Restarting Status = "restarting" // it ended and waits for its next try
	Exited     Status = "exited"
	Removing   Status = "removing"
	Dead       Status = "dead"    // removal failed halfway
	Removed    Status = "removed" // gone; only those who waited for it still hold the record
)

// Event is what makes a container change its state.
type Event string

// The events.
const (
	EventStart   Event = "start"   // begin to make the task
	EventStarted Event = "started" // the program runs
	EventFailed  Event = "failed"  // the program could not be started
	EventPause   Event = "pause"
	EventUnpause Event = "unpause"
	EventExit    Event = "exit"   // the program ended for good
	EventRetry   Event = "retry"  // the program ended and will be started again
	EventGiveUp  Event = "giveup" // the waiting for the next try was ended
	EventRemove  Event = "remove"
	EventLeave   Event = "leave" // removal failed halfway
	EventGone    Event = "gone"
)

type edge struct {
	from Status
	e    Event
}

// transitions is the whole machine: what is not in it is not allowed.
var transitions = map[edge]Status{
	{Created, EventStart}:      Starting,
	{Exited, EventStart}:       Starting,
	{Restarting, EventStart}:   Starting,
	{Starting, EventStarted}:   Running,
	{Starting, EventFailed}:    Exited,
	{Starting, EventRetry}:     Restarting,
	{Starting, EventExit}:      Exited,
	{Running, EventPause}:      Paused,
	{Paused, EventUnpause}:     Running,
	{Running, EventExit}:       Exited,
	{Paused, EventExit}:        Exited,
	{Running, EventRetry}:      Restarting,
	{Paused, EventRetry}:       Restarting,
	{Restarting, EventGiveUp}:  Exited,
	{Created, EventRemove}:     Removing,
	{Exited, EventRemove}:      Removing,
	{Restarting, EventRemove}:  Removing,
	{Dead, EventRemove}:        Removing,
	{Removing, EventLeave}:     Dead,
	{Removing, EventGone}:      Removed,
	{Removing, EventRemove}:    Removing, // found half removed when the engine started
	{Running, EventStarted}:    Running,  // found running when the engine started
	{Exited, EventStarted}:     Running,  // started while the engine's last record was on its way
	{Created, EventStarted}:    Running,
	{Restarting, EventStarted}: Running,
	{Exited, EventExit}:        Exited, // the exit of a program that could not be started
}

// Next returns the state after an event; an event that does not fit is errdefs.ErrConflict.
func (s Status) Next(e Event) (Status, error) {
	if to, ok := transitions[edge{s, e}]; ok {
		return to, nil
	}
	return s, errdefs.Conflict("a container that is %s cannot %s", s, e)
}

// Alive says whether the container has processes, or is about to.
func (s Status) Alive() bool { return s == Running || s == Paused }

// Shown returns the state under its Docker name.
func (s Status) Shown() Status {
	switch s {
	case Starting:
		return Created
	case Removed:
		return Removing
	}
	return s
}
