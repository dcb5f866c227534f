// Package oci is the vocabulary that every part of davit shares: digests, descriptors, manifests,
// image configurations and media types, with the names and JSON forms of the OCI image
// specification 1.1 and Docker's schema 2. It holds plain values, does no I/O and imports only the
// standard library.
//
// Three digests look alike and mean different things, so they are different Go types:
//
//	Digest   names bytes as they travel: a manifest, a config, a compressed layer blob
//	DiffID   names a layer's uncompressed tar
//	ChainID  names a layer applied on top of all layers below it
package oci
