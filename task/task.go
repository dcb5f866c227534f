// Package task is what the engine knows of running things. A task is one container's process tree in
// the hands of the monitor; an exec is one more process in it. The engine speaks to the monitor with
// Client over a unix seqpacket socket; this file is the vocabulary of that conversation.
//
//	Create -> created --Start--> running <--Pause/Resume--> paused
//	                               |
//	                               +-- its first process exits --> stopped --Delete--> gone
//
// The monitor outlives the engine. What it learns while no engine listens (exits, OOM kills) it keeps
// until an engine has acknowledged it.
package task

import (
	"encoding/json"
	"net/netip"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/rootfs"
)

// Status is where a task is in its life.
type Status string

// The states of a task or exec.
const (
	StatusCreated Status = "created" // namespaces and mounts are made; the user's program is not started
	StatusRunning Status = "running"
	StatusPaused  Status = "paused" // frozen by its cgroup
	StatusStopped Status = "stopped"
)

// CreateRequest asks for a task, parked before its program's first instruction.
type CreateRequest struct {
	ID     string        `json:"id"`
	Spec   *specs.Spec   `json:"spec"` // an OCI runtime spec; Root.Path is ignored in favour of Rootfs
	Rootfs rootfs.Rootfs `json:"rootfs"`
	Stdio  Stdio         `json:"stdio"`
	Log    LogConfig     `json:"log"`

	// Profile and ProfileKey are Spec.Linux.Seccomp on its way: Client.Create takes it out of the spec, and
	// the monitor puts it back with Assemble. Only the key goes to a monitor that has the profile already.
	Profile    json.RawMessage `json:"profile,omitempty"`
	ProfileKey string          `json:"profileKey,omitempty"` // SHA-256 of Profile, in hex
}

// Stdio says what the standard streams of a process are connected to.
type Stdio struct {
	Stdin     bool   `json:"stdin,omitempty"`     // keep a stdin open; else it reads end of file
	StdinOnce bool   `json:"stdinOnce,omitempty"` // close stdin when the first attached client's input ends
	Terminal  bool   `json:"terminal,omitempty"`  // one pseudo-terminal in place of three streams
	Rows      uint16 `json:"rows,omitempty"`      // first size of the terminal; 0 for the kernel's default
	Cols      uint16 `json:"cols,omitempty"`
}

// LogConfig says where the monitor writes a task's output. The form is package store/logs's.
type LogConfig struct {
	Path     string `json:"path,omitempty"`     // the current file, absolute; empty: output is not kept
	MaxSize  int64  `json:"maxSize,omitempty"`  // bytes per file before it is rotated; 0: unlimited
	MaxFiles int    `json:"maxFiles,omitempty"` // files kept in all, the current one included

	Attrs map[string]string `json:"attrs,omitempty"` // written with every entry; `logs --details` shows them
}

// ExecRequest asks for one more process in a running task. It starts at once.
type ExecRequest struct {
	Task    string         `json:"task"`
	ExecID  string         `json:"execId"`
	Process *specs.Process `json:"process"`
	Stdio   Stdio          `json:"stdio"`
	Detach  bool           `json:"detach,omitempty"` // output goes nowhere; no client will attach

	Attach *AttachRequest `json:"attach,omitempty"` // set by Client.Exec
}

// AttachRequest asks for a stream to and from a task's (ExecID empty) or exec's standard streams.
//
// The stream is a connected unix stream socket. From the monitor come, with a terminal, raw bytes, and
// without one Docker's multiplexed frames: one byte stream number (1 stdout, 2 stderr), three zero
// bytes, four bytes big-endian length, payload. Towards the monitor go raw bytes for stdin; shutting
// down the writing side is the end of that client's input. The monitor ends the stream after the last
// byte of output.
//
// The end of a client's input closes the process's stdin when Stdio.StdinOnce is set and there is no
// terminal. Closing the stream altogether does not: a client that is killed may come back. So whoever
// passes on the end of somebody's input shuts down writing first and reads on to the end.
//
// To attach before Start, and to an exec before its process starts (Create it with Attach in the same
// ExecRequest round trip), loses no output.
type AttachRequest struct {
	Task   string `json:"task"`
	ExecID string `json:"execId,omitempty"`
	Stdin  bool   `json:"stdin,omitempty"`
	Stdout bool   `json:"stdout,omitempty"`
	Stderr bool   `json:"stderr,omitempty"`
}

// RelayRequest says which relays a task is to have: sockets of the host that the monitor accepts on, and
// passes bytes from to the container, until the task ends.
type RelayRequest struct {
	Task   string  `json:"task"`
	Relays []Relay `json:"relays"`
	Keep   bool    `json:"keep,omitempty"` // what is not listed goes on; else it is closed
}

// Relay is one such socket.
type Relay struct {
	Proto  string         `json:"proto"` // "tcp" or "udp"
	Host   netip.AddrPort `json:"host"`
	To     netip.AddrPort `json:"to"`
	Socket bool           `json:"socket,omitempty"` // a bound socket comes with the request; else the monitor has it

	File *os.File `json:"-"` // the socket; set by the caller of Client.Relay, whose it stays
}

// State is a snapshot of a task or exec.
type State struct {
	ID         string    `json:"id"`
	ExecID     string    `json:"execId,omitempty"`
	Status     Status    `json:"status"`
	Pid        int       `json:"pid,omitempty"`    // in the engine's pid namespace; 0 once stopped
	Cgroup     string    `json:"cgroup,omitempty"` // what kernel/cgroup.Load takes
	Execs      []string  `json:"execs,omitempty"`  // of a task: its execs that have not exited, sorted
	StartedAt  time.Time `json:"startedAt,omitzero"`
	ExitedAt   time.Time `json:"exitedAt,omitzero"`
	ExitCode   int       `json:"exitCode,omitempty"` // 128+n after signal n
	OOMKilled  bool      `json:"oomKilled,omitempty"`
	StartError string    `json:"startError,omitempty"` // why the program could not be executed

	// What a monitor that was killed took with it. Lost names what: "stdin", "terminal", "exit code".
	Lost []string `json:"lost,omitempty"`

	LogErrors int    `json:"logErrors,omitempty"` // pieces of output that could not be written to the log
	LogError  string `json:"logError,omitempty"`  // why, the last time
}

// EventType names what happened to a task.
type EventType string

// The events a monitor reports.
const (
	EventExit     EventType = "exit"      // the task's first process is gone and all its output is written
	EventExecExit EventType = "exec-exit" // an exec's process is gone
	EventOOM      EventType = "oom"       // the kernel killed a process of the task for its memory limit
)

// Event is one thing that happened. Sequence numbers rise by one within a monitor's life; an engine
// acknowledges the last one it has recorded and is never told of it again.
type Event struct {
	Sequence uint64    `json:"sequence"`
	Type     EventType `json:"type"`
	Time     time.Time `json:"time"`
	State    State     `json:"state"`
}
