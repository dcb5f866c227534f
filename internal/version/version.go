// Package version holds the version that the programs were built as; the linker writes it.
package version

// Version is set by the Makefile; the value here is that of a plain go build.
var Version = "0.1.0-dev"
