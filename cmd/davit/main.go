// Command davit is the client: it turns a command line into requests to the engine, and streams into what
// a terminal shows. It starts an engine when none runs. See package cli.
package main

import (
	"os"

	"davit/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
