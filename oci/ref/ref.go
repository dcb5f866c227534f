// Package ref reads and writes image references, the URL-like names of images:
//
//	ubuntu                                  docker.io/library/ubuntu:latest
//	ubuntu:14.04                            docker.io/library/ubuntu:14.04
//	docker.io/library/ubuntu:trusty         itself
//	host:5000/a/b@sha256:<64 hex digits>    itself
//
// The grammar is that of the distribution project's reference package, which davit's tests use as the
// oracle; this one compiles no regular expression at start-up.
package ref

import (
	"fmt"
	"strings"

	"davit/oci"
	"davit/oci/errdefs"
)

const (
	defaultDomain = "docker.io"
	legacyDomain  = "index.docker.io"
	officialRepo  = "library/"
	defaultTag    = "latest"

	maxNameLength = 255
	maxTagLength  = 128
)

// Ref is a full reference. Domain and Path are never empty in a parsed one; of Tag and Digest one, both
// or none may be set. Refs are comparable.
type Ref struct {
	Domain string     // registry host[:port], "docker.io" when none was given
	Path   string     // repository path, "library/ubuntu"
	Tag    string     // without the colon
	Digest oci.Digest // without the at sign
}

// Parse reads a reference as a person writes it and fills in docker.io and library/. It does not add
// a tag: see WithDefaultTag. Errors are errdefs.ErrInvalid and name the broken rule.
func Parse(s string) (Ref, error) {
	if s == "" {
		return Ref{}, invalid(s, "it is empty")
	}
	if len(s) == 64 && isHex(s) {
		return Ref{}, invalid(s, "64 hexadecimal digits are an image ID, not a repository name")
	}
	rest, digest, hasDigest := strings.Cut(s, "@")
	r := Ref{}
	if hasDigest {
		d, err := oci.ParseDigest(digest)
		if err != nil {
			return Ref{}, invalid(s, err.Error())
		}
		r.Digest = d
	}
	// A colon after the last slash separates the tag; one before it is the registry's port.
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		r.Tag, rest = rest[i+1:], rest[:i]
		if why := badTag(r.Tag); why != "" {
			return Ref{}, invalid(s, why)
		}
	}
	r.Domain, r.Path = splitDomain(rest)
	if why := badDomain(r.Domain); why != "" {
		return Ref{}, invalid(s, why)
	}
	if why := badPath(r.Path); why != "" {
		return Ref{}, invalid(s, why)
	}
	if len(r.Name()) > maxNameLength {
		return Ref{}, invalid(s, fmt.Sprintf("the repository name is longer than %d characters", maxNameLength))
	}
	return r, nil
}

// splitDomain takes the first component as a registry host when it looks like one: it has a dot or a
// colon, is "localhost", or has an upper-case letter, which no repository path may have.
func splitDomain(name string) (domain, path string) {
	first, rest, slash := strings.Cut(name, "/")
	if !slash || (!strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first) {
		domain, path = defaultDomain, name
	} else {
		domain, path = first, rest
	}
	if domain == legacyDomain {
		domain = defaultDomain
	}
	if domain == defaultDomain && !strings.Contains(path, "/") {
		path = officialRepo + path
	}
	return domain, path
}

// Name returns domain/path, without tag and digest.
func (r Ref) Name() string { return r.Domain + "/" + r.Path }

// String returns the full reference, domain/path[:tag][@digest].
func (r Ref) String() string { return r.Name() + r.suffix() }

// FamiliarName returns the name as people write it: without docker.io and library/.
func (r Ref) FamiliarName() string {
	if r.Domain != defaultDomain {
		return r.Name()
	}
	if short, ok := strings.CutPrefix(r.Path, officialRepo); ok && !strings.Contains(short, "/") {
		return short
	}
	return r.Path
}

// Familiar returns the reference as people write it.
func (r Ref) Familiar() string { return r.FamiliarName() + r.suffix() }

func (r Ref) suffix() string {
	s := ""
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// WithDefaultTag adds ":latest" to a reference with neither tag nor digest.
func (r Ref) WithDefaultTag() Ref {
	if r.Tag == "" && r.Digest == "" {
		r.Tag = defaultTag
	}
	return r
}

// WithTag returns the reference with the tag and no digest.
func (r Ref) WithTag(tag string) Ref { r.Tag, r.Digest = tag, ""; return r }

// WithDigest returns the reference with the digest and no tag.
func (r Ref) WithDigest(d oci.Digest) Ref { r.Tag, r.Digest = "", d; return r }

// CheckPath says what is wrong with a repository path as registries take it, or nil.
func CheckPath(path string) error {
	if len(path) > maxNameLength {
		return errdefs.Invalid("the repository name is longer than %d characters", maxNameLength)
	}
	if why := badPath(path); why != "" {
		return errdefs.Invalid("%s", why)
	}
	return nil
}

// CheckTag says what is wrong with a tag, or nil.
func CheckTag(tag string) error {
	if why := badTag(tag); why != "" {
		return errdefs.Invalid("%s", why)
	}
	return nil
}

func invalid(s, why string) error {
	return errdefs.Invalid("invalid reference format: %q: %s", s, why)
}

func badTag(tag string) string {
	switch {
	case tag == "":
		return "the tag after ':' is empty"
	case len(tag) > maxTagLength:
		return fmt.Sprintf("the tag is longer than %d characters", maxTagLength)
	case !isWord(tag[0]):
		return fmt.Sprintf("the tag %q must begin with a letter, digit or underscore", tag)
	}
	for i := range len(tag) {
		if c := tag[i]; !isWord(c) && c != '.' && c != '-' {
			return fmt.Sprintf("the tag %q may hold letters, digits, '_', '.' and '-' only", tag)
		}
	}
	return ""
}

func badDomain(domain string) string {
	host, port := domain, ""
	if strings.HasPrefix(domain, "[") {
		end := strings.IndexByte(domain, ']')
		if end < 0 || strings.Trim(domain[1:end], "0123456789abcdefABCDEF:.") != "" {
			return fmt.Sprintf("the registry address %q is not a bracketed IPv6 address", domain)
		}
		host, port = "", domain[end+1:]
		if port != "" && port[0] != ':' {
			return fmt.Sprintf("the registry address %q is not a bracketed IPv6 address", domain)
		}
	} else if i := strings.IndexByte(domain, ':'); i >= 0 {
		host, port = domain[:i], domain[i:]
		if host == "" {
			return "the registry host is empty"
		}
	}
	if port != "" && (len(port) == 1 || strings.Trim(port[1:], "0123456789") != "") {
		return fmt.Sprintf("the registry port %q is not a number", port[1:])
	}
	if host == "" {
		return ""
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Sprintf("the registry host %q has an empty label, or one that begins or ends with '-'", host)
		}
		for i := range len(label) {
			if c := label[i]; c == '_' || (!isWord(c) && c != '-') {
				return fmt.Sprintf("the registry host %q may hold letters, digits, '.' and '-' only", host)
			}
		}
	}
	return ""
}

func badPath(path string) string {
	if path == "" {
		return "the repository name is empty"
	}
	for component := range strings.SplitSeq(path, "/") {
		if why := badComponent(component); why != "" {
			return why
		}
	}
	return ""
}

// badComponent checks [a-z0-9]+ groups joined by one of ".", "_", "__" or any number of "-".
func badComponent(component string) string {
	if component == "" {
		return "the repository name has an empty component (two slashes, or one at its end)"
	}
	if strings.ToLower(component) != component {
		return "repository name must be lowercase"
	}
	separator := ""
	for i := range len(component) {
		c := component[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			if separator != "" && separator != "." && separator != "_" && separator != "__" && strings.Trim(separator, "-") != "" {
				return fmt.Sprintf("the repository component %q has the separator %q; allowed are '.', '_', '__' and any number of '-'", component, separator)
			}
			separator = ""
		case c == '.', c == '_', c == '-':
			if i == 0 {
				return fmt.Sprintf("the repository component %q must begin with a letter or digit", component)
			}
			separator += string(c)
		default:
			return fmt.Sprintf("the repository component %q may hold lower-case letters, digits, '.', '_' and '-' only", component)
		}
	}
	if separator != "" {
		return fmt.Sprintf("the repository component %q must end with a letter or digit", component)
	}
	return ""
}

func isWord(c byte) bool {
	return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }
