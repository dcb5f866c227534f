package sys

// sharesMemory says that a process can be cloned onto a stack of its own, without a copy of the caller's
// page tables: that copy, and the faults of both after it, cost more than all namespaces together.
const sharesMemory = true

// cloneOnStack calls clone3(2); the child runs becomeChild on the stack that args name.
//
//go:noescape
func cloneOnStack(args *cloneArgs, size uintptr, call *spawnCall) (pid, errno uintptr)

// becomeChild is where cloneOnStack's child begins.
//
//lint:ignore U1000 assembly calls it
//go:norace
//go:nosplit
func becomeChild(c *spawnCall) {
	c.enterCgroups()
	c.becomeProgram()
}
