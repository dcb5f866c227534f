// Package files knows what is inside images without unpacking them: an Index lists the tar archive of one
// layer, a View is what a container sees of several of them, and Compare tells two Views apart. A Cache
// makes each Index once.
//
// Layers come from anybody who may push. A path is cleaned as if the archive were unpacked in an empty
// root, so ".." leads nowhere; names are kept as they are and may hold any bytes.
package files
