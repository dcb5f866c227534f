package main

import (
	"flag"

	"davit/registry/acme"
	registry "davit/registry/server"
)

// acmeFlags are the flags that have certificates made.
func acmeFlags(flags *flag.FlagSet, c *registry.Config) {
	flags.Func("acme-host", "name of this registry to have a certificate for, from an ACME server that reaches it at port 443; may be repeated", func(host string) error {
		c.ACME.Hosts = append(c.ACME.Hosts, host)
		return nil
	})
	flags.StringVar(&c.ACME.Email, "acme-email", "", "where the ACME server may write to")
	flags.StringVar(&c.ACME.Directory, "acme-directory", "", "URL of the ACME server's directory (default Let's Encrypt, "+acme.DefaultDirectory+", whose terms one accepts by asking it)")
	flags.StringVar(&c.ACME.HTTPAddr, "acme-http", "", "host:port to answer challenges on that come to port 80, and to send others on to https; such as :80")
}
