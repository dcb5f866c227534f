package main

import (
	"flag"

	registry "davit/registry/server"
)

// eventFlags are the flags that have others told of what happens.
func eventFlags(flags *flag.FlagSet, c *registry.Config) {
	flags.StringVar(&c.Webhooks, "webhooks", "", "JSON file of endpoints that are told of pushes, deletions and rollbacks, read again when it changes; see docs/registry.md")
	flags.StringVar(&c.WebhookDir, "webhook-dir", "", "directory of what they have not taken yet (default events/ under --root, with a bucket /var/lib/davit/registry-events)")
}
