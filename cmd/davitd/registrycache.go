package main

import (
	"flag"
	"slices"
	"time"

	"davit/oci/errdefs"
	"davit/registry/cache"
	registry "davit/registry/server"
)

// cacheFlags are the flags that make a registry a cache of others.
func cacheFlags(flags *flag.FlagSet, c *registry.Config) {
	flags.Func("upstream", "registry to cache, as NAME=URL (docker.io=https://registry-1.docker.io) or NAME; pulled as HOST/NAME/REPOSITORY, or by mirrors' ?ns=NAME; may be repeated", func(s string) error {
		u, err := cache.ParseUpstream(s)
		c.Upstreams = append(c.Upstreams, u)
		return err
	})
	flags.Func("default-upstream", "name of the --upstream to ask for repositories that this registry does not have, as dockerd's mirrors are asked", func(name string) error {
		i := slices.IndexFunc(c.Upstreams, func(u cache.Upstream) bool { return u.Name == name })
		if i < 0 {
			return errdefs.Invalid("no --upstream before it is named %q", name)
		}
		c.Upstreams[i].Default = true
		return nil
	})
	flags.DurationVar(&c.CacheAge, "cache-age", 90*24*time.Hour, "how long cached content is kept without use; 0 for ever")
	flags.StringVar(&c.CacheDir, "cache-dir", "/var/cache/davit/registry", "with a bucket as --root: directory for what arrives from upstreams")
	sizeVar(flags, &c.CacheSize, "cache-size", "bytes of cached blobs to keep, such as 500G; what was not used for longest goes (default no limit)")
}
