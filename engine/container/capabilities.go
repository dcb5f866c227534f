package container

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/kernel/cap"
)

// Capabilities returns the capabilities of a container: the default ones, without drop's and with
// add's; ALL stands for every one that known lists. A privileged container has all of known. What the
// engine itself does not have cannot be given and is left out; a name that does not exist is an error.
func Capabilities(known, add, drop []string, privileged bool) ([]string, error) {
	available, err := cap.SetOf(known)
	if err != nil {
		return nil, err
	}
	caps, err := cap.Tweak(cap.Default(), add, drop, available)
	if err != nil {
		return nil, err
	}
	if privileged {
		caps = known
	}
	return cap.Within(caps, available), nil
}

// capabilitySets gives root all of them at once; another user can only get them back by a set-uid
// program or file capabilities, so they bound it.
func capabilitySets(caps []string, uid uint32) *specs.LinuxCapabilities {
	if uid != 0 {
		return &specs.LinuxCapabilities{Bounding: caps}
	}
	return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}

// ExecCapabilities are those of one more process in a container whose spec gave it own: with
// privileged, everything the engine can give.
func ExecCapabilities(own *specs.LinuxCapabilities, known []string, uid uint32, privileged bool) *specs.LinuxCapabilities {
	if privileged {
		return &specs.LinuxCapabilities{Bounding: known, Effective: known, Permitted: known}
	}
	if own == nil {
		return nil
	}
	return capabilitySets(own.Bounding, uid)
}
