// Package netlink speaks rtnetlink(7) in batches: Conn.Do sends any number of requests with one system
// call and then reads their acknowledgements. Requests are values made by the functions of this
// package; nothing is looked up behind the caller's back, so what a batch costs can be read off it.
//
// What is not on a container's way to its first instruction (listing links and routes, conntrack) goes
// through github.com/vishvananda/netlink.
package netlink
