// Package plan reads a Dockerfile and says what is to be done: which stages the target needs, and for
// each stage, once its base image's configuration is known, its steps. It is pure: no files, no
// network, no clock.
//
//	Parse  Dockerfile, arguments, platform   -> Plan: stages and what they build on
//	Lower  Stage, base image's configuration -> steps, each with the configuration after it
//
// The language is that of Docker's Dockerfile frontend 1.20, with its parser. Errors about the
// Dockerfile are *Error, which names the line, and errdefs.ErrInvalid.
package plan

import (
	"fmt"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"davit/oci"
	"davit/oci/errdefs"
)

// Options are what a plan depends on beside the Dockerfile.
type Options struct {
	Args          map[string]string // build arguments (--build-arg)
	Target        string            // name or number of a stage; empty: the last one
	Platform      oci.Platform      // of the result
	BuildPlatform oci.Platform      // of this host
}

// Plan is what a Dockerfile says.
type Plan struct {
	Globals  []Global   // ARG instructions before the first FROM
	Stages   []*Stage   // all of them, in their order
	Target   *Stage     // the one to build
	Needed   []*Stage   // those that Target needs, Target last, in their order
	Warnings []Warning  // what a careful reader of the Dockerfile would say
	Unused   []string   // build arguments that no ARG takes, sorted
	Total    int        // Globals and the steps of Needed, each FROM included
	options  Options    //
	globals  *variables // values of Globals
	escape   rune
}

// Global is an ARG instruction before the first FROM.
type Global struct {
	Text string
	Line int
}

// Stage is a FROM and what follows it.
type Stage struct {
	Index    int
	Name     string // given with AS, in lower case; may be empty
	Text     string // the FROM instruction
	Line     int
	Base     Ref // where its layers begin; the zero Ref is scratch
	Platform oci.Platform
	Refs     []Ref // what COPY --from and RUN --mount=from take, without repetitions

	first int // number of its FROM in the build; 0 if it is not needed
	nodes []*parser.Node
	plan  *Plan
}

// Number returns the position of the stage's FROM in the build, from 1, or 0 if the target does not
// need the stage. Its other steps follow.
func (s *Stage) Number() int { return s.first }

// Title returns the stage's name, or "stage-N".
func (s *Stage) Title() string {
	if s.Name != "" {
		return s.Name
	}
	return fmt.Sprintf("stage-%d", s.Index)
}

// Ref names a source of files: another stage or an image. The zero value is neither: scratch as a base,
// the build context as a source of COPY. Refs are comparable.
type Ref struct {
	Stage    *Stage
	Image    string
	Platform string // of the image, os/architecture[/variant]
}

// IsZero says whether r is neither stage nor image.
func (r Ref) IsZero() bool { return r == Ref{} }

// Step is one instruction of a stage, after expansion.
type Step struct {
	Text      string // as in the Dockerfile
	Line      int
	Trigger   bool         // it comes from ONBUILD of the base image
	CreatedBy string       // for the image's history
	Op        any          // *Copy, *Run, *Workdir, or nil if the configuration is all that changes
	Config    oci.Config   // after the step
	Author    string       // after the step
	Platform  oci.Platform // of the stage
}

// Copy is COPY or ADD.
type Copy struct {
	Add      bool
	From     Ref
	Sources  []string // paths in From, or with Add also URLs
	Inline   []Inline // here-documents
	Dest     string   // absolute; ends in "/" when it must be a directory
	Chown    string   // user[:group]
	Chmod    string   // octal or symbolic
	Link     bool     // the destination does not depend on the layers below
	Parents  bool     // keep the sources' parent directories
	Exclude  []string // patterns of sources to leave out
	Unpack   *bool    // ADD --unpack; nil: local archives yes, remote ones no
	Checksum string   // of a remote source, "sha256:..."
}

// Inline is a file whose content is in the Dockerfile.
type Inline struct {
	Name    string
	Content string
}

// Run is RUN.
type Run struct {
	Args     []string
	Script   string   // when not empty: Args[0] is a file with this content
	Env      []string // with the build arguments; part of what the step is
	Proxy    []string // predefined proxy arguments, in the environment but not part of what the step is
	Dir      string
	User     string
	Mounts   []Mount
	Network  string // "default", "none" or "host"
	Insecure bool
}

// Mount is RUN --mount.
type Mount struct {
	Type     string // bind, cache, tmpfs, secret, ssh
	From     Ref    // bind, cache: zero: the build context
	Source   string
	Target   string // absolute; for a secret it may be empty
	ReadOnly bool
	Size     int64  // tmpfs: bytes
	ID       string // cache, secret, ssh
	Sharing  string // cache: shared, private, locked
	Required bool   // secret, ssh
	Env      string // secret: name of the variable that gets it
	Mode     *uint64
	UID      *uint64
	GID      *uint64
}

// Workdir is WORKDIR: the directory is made if it is missing.
type Workdir struct {
	Dir string
}

// Warning is about one line of the Dockerfile.
type Warning struct {
	Line int
	Rule string // name of a rule of Docker's build checks
	Text string
}

// Error is a fault of the Dockerfile.
type Error struct {
	Line int
	Err  error
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return "dockerfile parse error: " + e.Err.Error()
	}
	return fmt.Sprintf("dockerfile parse error on line %d: %v", e.Line, e.Err)
}

// Unwrap returns the fault itself, and its class.
func (e *Error) Unwrap() []error { return []error{errdefs.ErrInvalid, e.Err} }

func errorf(line int, format string, args ...any) error {
	return &Error{Line: line, Err: fmt.Errorf(format, args...)}
}

func line(c instructions.Command) int {
	if ranges := c.Location(); len(ranges) > 0 {
		return ranges[0].Start.Line
	}
	return 0
}
