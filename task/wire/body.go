package wire

import (
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Target names a task, or with ExecID one of its execs. It is the whole body of the operations that
// need no more: start, pause, resume, close stdin, state, delete.
type Target struct {
	ID     string `json:"id"`
	ExecID string `json:"execId,omitempty"`
}

// Hello is the monitor's answer to OpHello.
type Hello struct {
	Version int       `json:"version"`
	Pid     int       `json:"pid"`
	Started time.Time `json:"started"` // of this life: an upgrade in place begins a new one
	Binary  string    `json:"binary"`
}

// Kill is the body of OpKill.
type Kill struct {
	Target
	Signal int  `json:"signal"`
	All    bool `json:"all,omitempty"` // every process of the task
}

// Resize is the body of OpResize.
type Resize struct {
	Target
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Update is the body of OpUpdate.
type Update struct {
	ID        string                `json:"id"`
	Resources *specs.LinuxResources `json:"resources"`
}

// Sequence is the body of OpEvents (everything after it) and OpAcknowledge (everything up to it).
type Sequence struct {
	Sequence uint64 `json:"sequence"`
}

// Upgrade is the body of OpUpgrade.
type Upgrade struct {
	Binary string `json:"binary"`
}
