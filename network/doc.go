// Package network gives containers their networks: it keeps the networks that exist, the addresses
// and host ports that are in use, and puts endpoints into network namespaces.
//
//	Create ──> network            a bridge device, a subnet or two, rules in nft; durable
//	Allocate ─> endpoint          address, MAC, host ports: reserved, nothing is in the kernel yet
//	Attach ──> attached endpoint  veth pair, addresses, routes, published ports, name server
//	Detach ──> gone               ports and names at once, addresses when the kernel let the veth go
//
// Packets never pass through davit: published ports and NAT are elements of nft maps and keep
// working while no engine runs. Only the name server on 127.0.0.11 lives in the engine; Reconcile
// opens it again after a restart.
//
// A network is durable (store/metadata). An endpoint lives as long as its container runs: in memory
// and in one file per container without fsync,
//
//	<RunDir>/endpoints/<container id>.json    []Endpoint
//
// so that a reboot forgets endpoints together with the kernel state they describe.
package network
