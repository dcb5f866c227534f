// Package engine carries out what users ask for. It is a handful of small services over a few shared
// parts:
//
//	Containers  create, start, stop, kill, remove, ...: what changes a container
//	Views       list, inspect, logs, top, stats, changes: what only looks at containers
//	Streams     attach and resize
//	Execs       one more process in a running container
//	Archives    cp, export, commit: what touches a container's files
//	Images, Networks, Volumes, Builds, System
//
// The shared parts: the roster knows every container by id and name; an actor keeps one container's
// present record and lets its changes happen one after another; the journal keeps records over
// restarts; the link is the connection to the monitor; the bus carries events; ids hands out ranges
// of user ids.
//
// # How a container is changed
//
// Who changes a container takes its actor's turn, acts, and publishes a new record. Readers take the
// published record, which never changes, and wait for nobody: ps does not hang while a container
// starts. Whoever waits for a change (docker wait) waits for the next publication.
//
// # What survives what
//
// The monitor is the parent of every container, so containers survive the engine. On start the engine
// loads the records and goes through the monitor's list of tasks (reconcile.go). A record is written
// before the side effect that it announces; what happened later is written behind.
package engine
