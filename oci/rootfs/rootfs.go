// Package rootfs holds the value by which the side that keeps layers tells the side that runs
// processes how a root file system is put together. It mounts nothing.
package rootfs

// Rootfs is either a plain directory (Dir) or an overlay of layer directories. All paths are absolute.
//
// The directories hold files with the owners that the image gave them. When the container has a user
// namespace, the runtime maps them by idmapped mounts; nothing is shifted on disk.
type Rootfs struct {
	Dir   string   `json:"dir,omitempty"`   // a plain directory; then the rest is empty
	Lower []string `json:"lower,omitempty"` // layer directories, lowest first; may be empty for scratch
	Upper string   `json:"upper,omitempty"` // the container's writes; empty: read-only overlay
	Work  string   `json:"work,omitempty"`  // overlayfs's own, beside Upper on the same file system

	// Volatile leaves out overlayfs's fsyncs; for containers that do not outlive the host's uptime.
	Volatile bool `json:"volatile,omitempty"`
}
