package plan

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"davit/oci"
)

// Parse reads a Dockerfile.
func Parse(dockerfile []byte, o Options) (*Plan, error) {
	p := &Plan{options: o}
	if len(bytes.TrimSpace(dockerfile)) == 0 {
		return nil, errorf(0, "the Dockerfile cannot be empty")
	}
	result, err := parser.Parse(bytes.NewReader(dockerfile))
	if err != nil {
		return nil, located(err, 0)
	}
	p.escape = result.EscapeToken
	p.globals = platformVariables(o, cmp.Or(o.Target, "default"))
	for _, w := range result.Warnings {
		p.warn(w.Location, "", w.Short)
	}
	if err := p.readNodes(result.AST.Children, p.linter()); err != nil {
		return nil, err
	}
	if len(p.Stages) == 0 {
		return nil, errorf(0, "no build stage: the Dockerfile has no FROM")
	}
	for _, s := range p.Stages {
		if err := s.findRefs(); err != nil {
			return nil, err
		}
	}
	if p.Target, err = p.stage(o.Target); err != nil {
		return nil, err
	}
	p.number()
	p.Unused = p.unusedArgs()
	return p, nil
}

// located makes err an *Error with the line that it carries, or else with line.
func located(err error, line int) error {
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	var at *parser.LocationError
	if errors.As(err, &at) && len(at.Locations) > 0 && len(at.Locations[0]) > 0 {
		line = at.Locations[0][0].Start.Line
	}
	return &Error{Line: line, Err: err}
}

func (p *Plan) linter() *linter.Linter {
	return linter.New(&linter.Config{Warn: func(rule, _, _, text string, at []parser.Range) {
		var first *parser.Range
		if len(at) > 0 {
			first = &at[0]
		}
		p.warn(first, rule, text)
	}})
}

func (p *Plan) warn(at *parser.Range, rule, text string) {
	w := Warning{Rule: rule, Text: text}
	if at != nil {
		w.Line = at.Start.Line
	}
	if !slices.Contains(p.Warnings, w) {
		p.Warnings = append(p.Warnings, w)
	}
}

// readNodes sorts the instructions into the global ARGs and the stages, and checks the form of each.
func (p *Plan) readNodes(nodes []*parser.Node, lint *linter.Linter) error {
	for _, node := range nodes {
		command, err := instructions.ParseInstructionWithLinter(node, lint)
		if err != nil {
			return located(err, node.StartLine)
		}
		switch c := command.(type) {
		case *instructions.Stage:
			s, err := p.newStage(c)
			if err != nil {
				return err
			}
			p.Stages = append(p.Stages, s)
		case *instructions.ArgCommand:
			if len(p.Stages) > 0 {
				p.lastStage().nodes = append(p.lastStage().nodes, node)
			} else if err := p.addGlobal(c); err != nil {
				return err
			}
		default:
			if len(p.Stages) == 0 {
				return errorf(node.StartLine, "no build stage in current context: %s stands before the first FROM", strings.ToUpper(node.Value))
			}
			p.lastStage().nodes = append(p.lastStage().nodes, node)
		}
	}
	return nil
}

func (p *Plan) lastStage() *Stage { return p.Stages[len(p.Stages)-1] }

func (p *Plan) addGlobal(c *instructions.ArgCommand) error {
	p.Globals = append(p.Globals, Global{Text: c.String(), Line: line(c)})
	for _, arg := range c.Args {
		if given, ok := p.options.Args[arg.Key]; ok {
			p.globals.set(arg.Key, given)
			continue
		}
		if arg.Value == nil {
			continue
		}
		value, _, err := expand(p.escape, *arg.Value, p.globals)
		if err != nil {
			return located(err, line(c))
		}
		p.globals.set(arg.Key, value)
	}
	return nil
}

func (p *Plan) newStage(c *instructions.Stage) (*Stage, error) {
	s := &Stage{Index: len(p.Stages), Name: strings.ToLower(c.Name), Text: c.SourceCode, plan: p, Platform: p.options.Platform}
	if len(c.Location) > 0 {
		s.Line = c.Location[0].Start.Line
	}
	base, unset, err := expand(p.escape, c.BaseName, p.globals)
	if err != nil {
		return nil, located(err, s.Line)
	}
	if base == "" {
		return nil, errorf(s.Line, "base name (%s) should not be blank%s", c.BaseName, notSet(unset))
	}
	platform, unset, err := expand(p.escape, c.Platform, p.globals)
	if err != nil {
		return nil, located(err, s.Line)
	}
	if c.Platform != "" {
		if platform == "" {
			return nil, errorf(s.Line, "empty platform value from expression %s%s", c.Platform, notSet(unset))
		}
		if s.Platform, err = ParsePlatform(platform); err != nil {
			return nil, located(err, s.Line)
		}
	}
	if parent := p.named(base); parent != nil {
		s.Base = Ref{Stage: parent}
		if c.Platform == "" {
			s.Platform = parent.Platform
		}
	} else if base != "scratch" {
		s.Base = Ref{Image: base, Platform: s.Platform.String()}
	}
	return s, nil
}

func notSet(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return ": no value for " + strings.Join(names, ", ") + " (is there an ARG before the first FROM?)"
}

// ParsePlatform reads os/architecture[/variant], or one of the first two alone; the rest is this program's.
func ParsePlatform(s string) (oci.Platform, error) {
	parts := strings.Split(strings.ToLower(s), "/")
	for _, part := range parts {
		if part == "" {
			return oci.Platform{}, fmt.Errorf("invalid platform %q: want os/architecture[/variant]", s)
		}
	}
	switch len(parts) {
	case 1:
		if parts[0] == "linux" {
			return oci.Platform{OS: "linux", Architecture: runtime.GOARCH}, nil
		}
		return oci.Platform{OS: "linux", Architecture: architecture(parts[0])}, nil
	case 2:
		return oci.Platform{OS: parts[0], Architecture: architecture(parts[1])}, nil
	case 3:
		return oci.Platform{OS: parts[0], Architecture: architecture(parts[1]), Variant: parts[2]}, nil
	}
	return oci.Platform{}, fmt.Errorf("invalid platform %q: want os/architecture[/variant]", s)
}

// architecture gives the names of other systems the form that images use.
func architecture(name string) string {
	switch name {
	case "x86_64", "x86-64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386":
		return "386"
	}
	return name
}

// named returns the last stage so far with that name, or nil.
func (p *Plan) named(name string) *Stage {
	for _, s := range slices.Backward(p.Stages) {
		if s.Name != "" && s.Name == strings.ToLower(name) {
			return s
		}
	}
	return nil
}

// stage finds the target.
func (p *Plan) stage(target string) (*Stage, error) {
	if target == "" {
		return p.lastStage(), nil
	}
	if s := p.named(target); s != nil {
		return s, nil
	}
	if n, err := strconv.Atoi(target); err == nil && n >= 0 && n < len(p.Stages) {
		return p.Stages[n], nil
	}
	return nil, errorf(0, "target stage %q could not be found", target)
}

// findRefs reads the --from of the stage's instructions.
func (s *Stage) findRefs() error {
	for _, node := range s.nodes {
		command, err := instructions.ParseInstruction(node)
		if err != nil {
			return located(err, node.StartLine)
		}
		for _, from := range fromNames(command) {
			r, err := s.ref(from)
			if err != nil {
				return located(err, node.StartLine)
			}
			if !r.IsZero() && !slices.Contains(s.Refs, r) {
				s.Refs = append(s.Refs, r)
			}
		}
	}
	return nil
}

func fromNames(command any) (names []string) {
	switch c := command.(type) {
	case *instructions.CopyCommand:
		names = append(names, c.From)
	case *instructions.RunCommand:
		for _, m := range instructions.GetMounts(c) {
			names = append(names, m.From)
		}
	}
	return names
}

// ref resolves a --from: the name or number of an earlier stage, or else an image.
func (s *Stage) ref(from string) (Ref, error) {
	if from == "" {
		return Ref{}, nil
	}
	if strings.ContainsRune(from, '$') {
		return Ref{}, errors.New("variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround")
	}
	if n, err := strconv.Atoi(from); err == nil {
		if n < 0 || n >= s.Index {
			return Ref{}, errors.New("invalid from flag value " + from + ": it is not the number of an earlier stage")
		}
		return Ref{Stage: s.plan.Stages[n]}, nil
	}
	for _, other := range slices.Backward(s.plan.Stages[:s.Index]) {
		if other.Name != "" && other.Name == strings.ToLower(from) {
			return Ref{Stage: other}, nil
		}
	}
	if s.Name != "" && s.Name == strings.ToLower(from) {
		return Ref{}, errors.New("circular dependency: stage " + s.Name + " takes files from itself")
	}
	return Ref{Image: from, Platform: s.Platform.String()}, nil
}

// number finds what the target needs and counts its steps.
func (p *Plan) number() {
	needed := map[*Stage]bool{}
	var visit func(*Stage)
	visit = func(s *Stage) {
		if s == nil || needed[s] {
			return
		}
		needed[s] = true
		visit(s.Base.Stage)
		for _, r := range s.Refs {
			visit(r.Stage)
		}
	}
	visit(p.Target)
	p.Total = len(p.Globals)
	for _, s := range p.Stages {
		if needed[s] {
			p.Needed = append(p.Needed, s)
			s.first = p.Total + 1
			p.Total += 1 + len(s.nodes)
		}
	}
}

// unusedArgs lists build arguments that no instruction takes.
func (p *Plan) unusedArgs() []string {
	unused := maps.Clone(p.options.Args)
	for _, name := range proxyArgs() {
		delete(unused, name)
	}
	for name := range unused {
		if _, ok := p.globals.Get(name); ok || strings.HasPrefix(name, "BUILDKIT_") || name == "SOURCE_DATE_EPOCH" {
			delete(unused, name)
		}
	}
	for _, s := range p.Stages {
		for _, node := range s.nodes {
			for arg := node; strings.EqualFold(node.Value, "arg") && arg.Next != nil; arg = arg.Next {
				name, _, _ := strings.Cut(arg.Next.Value, "=")
				delete(unused, name)
			}
		}
	}
	return slices.Sorted(maps.Keys(unused))
}
