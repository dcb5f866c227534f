// Package volume keeps named and anonymous volumes of the local driver:
//
//	<root>/<name>/_data/         what containers see
//	<root>/<name>/volume.json    labels, options, time of creation
//	<root>/<name>/copying        there while CopyUp is at work; what a crash left is copied anew
//	<root>/<name>/_removed/      _data of a volume that is being removed
//	<root>/.new-<random>/        a volume being made
//	<root>/.trash/               volumes being deleted
//
// A volume whose options name a device is mounted over _data by whoever starts containers; this
// package only says what to mount (Volume.Mount).
package volume

import "time"

// LabelAnonymous marks a volume that nobody named, as Docker does; its value is empty.
const LabelAnonymous = "com.docker.volume.anonymous"

// Volume is one volume.
type Volume struct {
	Name    string            `json:"name"`
	Options map[string]string `json:"options,omitempty"` // type, o, device
	Labels  map[string]string `json:"labels,omitempty"`
	Created time.Time         `json:"created"`
	Path    string            `json:"-"` // the _data directory, absolute
}

// Anonymous says whether the volume was made without a name.
func (v Volume) Anonymous() bool { _, ok := v.Labels[LabelAnonymous]; return ok }

// Mount is what has to be mounted on Volume.Path before use, in the words of mount(8).
type Mount struct {
	Type    string // "tmpfs", "nfs", "none" for a bind mount, ...
	Device  string
	Options string // comma-separated, as given with -o o=...
}

// Mount returns what to mount on v.Path; ok is false for a volume that is just a directory.
func (v Volume) Mount() (m Mount, ok bool) {
	if v.Options["device"] == "" {
		return Mount{}, false
	}
	return Mount{Type: v.Options["type"], Device: v.Options["device"], Options: v.Options["o"]}, true
}
