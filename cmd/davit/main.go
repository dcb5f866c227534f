// Command davit is the client: it turns a command line into requests to the engine, and streams into what
// a terminal shows. It starts an engine when none runs. See package cli.
package main

import (
	"os"
	"runtime"

	"davit/cli"
)

// A client that lives for milliseconds and waits most of them is quickest on one processor: threads that
// wake each other cost it more than they can do side by side.
func main() {
	runtime.GOMAXPROCS(1)
	os.Exit(cli.Main(os.Args[1:]))
}
