package plan

import (
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"davit/oci"
)

// proxyArgs may be given as build arguments without an ARG. They reach RUN steps, and are kept out of
// history and cache keys.
func proxyArgs() []string {
	names := []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"}
	for _, name := range names[:5] {
		names = append(names, strings.ToLower(name))
	}
	return names
}

// variables are what $name expands to. Of a name set twice the later value counts.
type variables struct {
	names  []string // in the order of their first setting
	values map[string]string
}

func newVariables() *variables { return &variables{values: map[string]string{}} }

func (v *variables) set(name, value string) {
	if _, ok := v.values[name]; !ok {
		v.names = append(v.names, name)
	}
	v.values[name] = value
}

// setAll takes name=value pairs.
func (v *variables) setAll(env []string) {
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		v.set(name, value)
	}
}

func (v *variables) clone() *variables {
	c := newVariables()
	for _, name := range v.names {
		c.set(name, v.values[name])
	}
	return c
}

// Get implements shell.EnvGetter.
func (v *variables) Get(name string) (string, bool) {
	value, ok := v.values[name]
	return value, ok
}

// Keys implements shell.EnvGetter.
func (v *variables) Keys() []string { return slices.Clone(v.names) }

// platformVariables are the automatic arguments of the global scope.
func platformVariables(o Options, target string) *variables {
	v := newVariables()
	for prefix, p := range map[string]oci.Platform{"BUILD": o.BuildPlatform, "TARGET": o.Platform} {
		v.set(prefix+"PLATFORM", p.String())
		v.set(prefix+"OS", p.OS)
		v.set(prefix+"OSVERSION", p.OSVersion)
		v.set(prefix+"ARCH", p.Architecture)
		v.set(prefix+"VARIANT", p.Variant)
	}
	v.set("TARGETSTAGE", target)
	slices.Sort(v.names)
	return v
}

// expand replaces the variables in one word, and says which were not set.
func expand(escape rune, word string, v *variables) (result string, unset []string, err error) {
	r, err := shell.NewLex(escape).ProcessWordWithMatches(word, v)
	for name := range r.Unmatched {
		unset = append(unset, name)
	}
	slices.Sort(unset)
	return r.Result, unset, err
}

// setEnv sets name=value in a list of them, in place of an older value.
func setEnv(env []string, name, value string) []string {
	env = slices.Clone(env)
	for i, pair := range env {
		if have, _, _ := strings.Cut(pair, "="); have == name {
			env[i] = name + "=" + value
			return env
		}
	}
	return append(env, name+"="+value)
}
