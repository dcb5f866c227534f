// Command davit-oci runs containers: as the process that is parent of them all (monitor).
package main

import (
	"fmt"
	"os"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) > 0 && args[0] == "monitor" {
		return runMonitor(args[1:], os.Stdout, os.Stderr)
	}
	fmt.Fprintln(os.Stderr, "usage: davit-oci monitor --socket PATH --dir DIR")
	return 2
}
