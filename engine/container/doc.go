// Package container decides; it does nothing. It holds what the engine promises to keep of a container
// (Record), the one state machine of its life (Status, Event, Next), what to do when its program ends
// (Decide), where its root stands (Isolate), which mounts a request means (ParseMounts) and what the
// kernel shall do for it (BuildSpec). All of it is plain values and pure functions: the host enters as
// a HostFacts, so everything here is tested without root.
//
// The wire form of what a user asked for, Config and HostConfig, is kept in the record as it came; this
// package's converters are the only readers that turn it into something for the kernel.
package container
