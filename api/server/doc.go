// Package server answers the Docker Engine API over HTTP: it decodes a request, calls one method of the
// engine's services, and encodes the outcome. What it decides itself is form only: which version of the
// API a client speaks, which status code an error has, and how streams travel.
//
//	server.go    the handler: version prefix, router, errors
//	route.go     the table of routes
//	<noun>.go    the handlers of one noun
//	stream.go    taking over connections, frames, detach keys
//	message.go   progress as a sequence of JSON messages
//
// The API is that of Docker Engine 28 (1.51); clients from 1.24 up are served, with the few differences
// that their versions had (compat.go).
package server
