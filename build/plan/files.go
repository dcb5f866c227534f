package plan

import (
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"davit/oci/errdefs"
)

func (l *lowering) copy(c *instructions.CopyCommand) error {
	from, err := l.stage.ref(c.From)
	if err != nil {
		return err
	}
	op := &Copy{From: from, Chown: c.Chown, Chmod: c.Chmod, Link: c.Link, Parents: c.Parents, Exclude: c.ExcludePatterns}
	if err := l.sources(op, "COPY", c.SourcesAndDest); err != nil {
		return err
	}
	l.step.Op = op
	l.noteFiles("COPY", c.SourcesAndDest, option("from", c.From), option("chown", c.Chown), option("chmod", c.Chmod), toggle("link", c.Link))
	return nil
}

func (l *lowering) add(c *instructions.AddCommand) error {
	op := &Copy{Add: true, Chown: c.Chown, Chmod: c.Chmod, Link: c.Link, Exclude: c.ExcludePatterns, Unpack: c.Unpack, Checksum: c.Checksum}
	if err := l.sources(op, "ADD", c.SourcesAndDest); err != nil {
		return err
	}
	remote := 0
	for _, source := range op.Sources {
		if isGit(source) {
			return fmt.Errorf("ADD %s: git repositories are not supported as sources", source)
		}
		if IsRemote(source) {
			remote++
		}
	}
	if c.Checksum != "" && (remote != 1 || len(op.Sources) != 1) {
		return fmt.Errorf("checksum can't be specified for non-HTTP(S) sources or more than one of them")
	}
	l.step.Op = op
	l.noteFiles("ADD", c.SourcesAndDest, option("chown", c.Chown), option("chmod", c.Chmod), toggle("link", c.Link), option("checksum", c.Checksum))
	return nil
}

func option(name, value string) string {
	if value == "" {
		return ""
	}
	return "--" + name + "=" + value
}

func toggle(name string, value bool) string {
	if !value {
		return ""
	}
	return "--" + name
}

// noteFiles sets how history shows COPY and ADD.
func (l *lowering) noteFiles(name string, c instructions.SourcesAndDest, flags ...string) {
	words := []string{name}
	for _, f := range flags {
		if f != "" {
			words = append(words, f)
		}
	}
	words = append(words, c.SourcePaths...)
	for _, inline := range c.SourceContents {
		words = append(words, "<<"+inline.Path)
	}
	l.step.CreatedBy = strings.Join(append(words, c.DestPath), " ") + " # buildkit"
}

// sources fills in what COPY and ADD have in common.
func (l *lowering) sources(op *Copy, name string, c instructions.SourcesAndDest) error {
	op.Sources = c.SourcePaths
	for _, inline := range c.SourceContents {
		op.Inline = append(op.Inline, Inline{Name: inline.Path, Content: inline.Data})
	}
	if c.DestPath == "" {
		return fmt.Errorf("%s needs a destination that is not empty", name)
	}
	op.Dest = l.absolute(c.DestPath)
	base := path.Base(c.DestPath)
	directory := strings.HasSuffix(c.DestPath, "/") || base == "." || base == ".."
	if directory && op.Dest != "/" {
		op.Dest += "/"
	}
	if len(op.Sources)+len(op.Inline) > 1 && !directory {
		return errdefs.Invalid("When using %s with more than one source file, the destination must be a directory and end with a /", name)
	}
	return nil
}

// IsRemote says whether a source of ADD is fetched.
func IsRemote(source string) bool {
	return strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://")
}

func isGit(source string) bool {
	for _, prefix := range []string{"git://", "git@", "ssh://"} {
		if strings.HasPrefix(source, prefix) {
			return true
		}
	}
	u, err := url.Parse(source)
	return err == nil && IsRemote(source) && strings.HasSuffix(u.Path, ".git")
}
