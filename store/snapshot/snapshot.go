// Package snapshot keeps what containers write: for each one an overlay upper directory on top of the
// layers of its image. It mounts nothing; it says, as a rootfs.Rootfs, what is to be mounted.
//
//	<root>/<key>/snapshot.json   layers, options
//	<root>/<key>/upper/          the container's writes; a view's root directory
//	<root>/<key>/work/           overlayfs's own; absent in a view
//	<root>/trash/                snapshots being deleted
//
// A key is chosen by the caller (a container's ID): letters, digits, '_', '.', '-', at most 128, not
// beginning with '.', and not "trash".
//
// A snapshot is active from Prepare or View until Remove or Seal, over restarts of the engine. It
// refers to layers; the collector keeps the layers that List names.
package snapshot

import "davit/oci"

// Options say what kind of snapshot to prepare.
type Options struct {
	// Volatile is for a container that does not outlive the host's uptime (docker run --rm): nothing is
	// synced, neither by this package nor by overlayfs.
	Volatile bool
}

// Snapshot describes one snapshot.
type Snapshot struct {
	Key      string       `json:"key"`
	Layers   []oci.DiffID `json:"layers"` // lowest first
	ReadOnly bool         `json:"readOnly,omitempty"`
	Volatile bool         `json:"volatile,omitempty"`
}
