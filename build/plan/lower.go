package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"davit/oci"
)

// DefaultPath is the PATH of an image that sets none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Lowered is a stage whose base is known.
type Lowered struct {
	Steps []Step
	State State
}

// State is what a stage hands to one that is FROM it, beside its layers.
type State struct {
	Config oci.Config
	Author string
	args   *variables // the ARGs in scope, with a value
	noted  []string   // their names in the order of their instructions
}

// Scratch is the State of an empty base.
func Scratch() State {
	return State{Config: oci.Config{Env: []string{"PATH=" + DefaultPath}, WorkingDir: "/"}}
}

// FromImage is the State of a base image.
func FromImage(image oci.Image) State { return State{Config: image.Config, Author: image.Author} }

// lowering is the state of Lower between two instructions.
type lowering struct {
	stage  *Stage
	step   *Step
	config oci.Config
	author string
	args   *variables
	noted  []string
	cmdSet bool // CMD appeared in this stage
}

// Lower returns the stage's steps over a base, the base's ONBUILD triggers first. Each call parses
// anew, and none changes the stage.
func (s *Stage) Lower(base State) (Lowered, error) {
	l := &lowering{stage: s, config: base.Config, author: base.Author, args: newVariables(), noted: slices.Clone(base.noted)}
	if base.args != nil {
		l.args = base.args.clone()
	}
	triggers := l.config.OnBuild
	l.config.OnBuild = nil
	var steps []Step
	for _, trigger := range triggers {
		nodes, err := parseTrigger(trigger)
		if err != nil {
			return Lowered{}, errorf(s.Line, "ONBUILD trigger %q: %w", trigger, err)
		}
		for _, node := range nodes {
			step, err := l.lower(node)
			if err != nil {
				return Lowered{}, &Error{Line: s.Line, Err: fmt.Errorf("ONBUILD trigger %q: %w", trigger, err)}
			}
			step.Trigger, step.Line = true, s.Line
			steps = append(steps, step)
		}
	}
	for _, node := range s.nodes {
		step, err := l.lower(node)
		if err != nil {
			return Lowered{}, located(err, node.StartLine)
		}
		steps = append(steps, step)
	}
	return Lowered{Steps: steps, State: State{Config: l.config, Author: l.author, args: l.args, noted: l.noted}}, nil
}

func parseTrigger(trigger string) ([]*parser.Node, error) {
	result, err := parser.Parse(strings.NewReader(trigger))
	if err != nil {
		return nil, err
	}
	return result.AST.Children, nil
}

// lower turns one instruction into a step.
func (l *lowering) lower(node *parser.Node) (Step, error) {
	parsed, err := instructions.ParseInstruction(node)
	if err != nil {
		return Step{}, err
	}
	command, ok := parsed.(instructions.Command)
	if !ok {
		return Step{}, fmt.Errorf("%s is not allowed here", strings.ToUpper(node.Value))
	}
	if err := l.expandCommand(command); err != nil {
		return Step{}, err
	}
	l.step = &Step{Text: strings.TrimSpace(node.Original), Line: node.StartLine, Platform: l.stage.Platform}
	if err := l.apply(command); err != nil {
		return Step{}, err
	}
	l.step.Config, l.step.Author = l.config, l.author
	return *l.step, nil
}

// variables returns what expands in the next instruction: ENV wins over ARG.
func (l *lowering) variables() *variables {
	v := l.args.clone()
	v.setAll(l.config.Env)
	return v
}

func (l *lowering) expandCommand(command instructions.Command) error {
	known := l.variables()
	if c, ok := command.(instructions.SupportsSingleWordExpansion); ok {
		err := c.Expand(func(word string) (string, error) {
			result, _, err := expand(l.stage.plan.escape, word, known)
			return result, err
		})
		if err != nil {
			return err
		}
	}
	if c, ok := command.(instructions.SupportsSingleWordExpansionRaw); ok {
		return c.ExpandRaw(func(text string) (string, error) {
			lex := shell.NewLex('\\')
			lex.SkipProcessQuotes = true
			result, _, err := lex.ProcessWord(text, known)
			return result, err
		})
	}
	return nil
}

// apply carries the instruction's effect into the configuration and describes its work in l.step.
func (l *lowering) apply(command instructions.Command) error {
	switch c := command.(type) {
	case *instructions.RunCommand:
		return l.run(c)
	case *instructions.CopyCommand:
		return l.copy(c)
	case *instructions.AddCommand:
		return l.add(c)
	case *instructions.WorkdirCommand:
		return l.workdir(c)
	case *instructions.ArgCommand:
		return l.arg(c)
	case *instructions.ExposeCommand:
		return l.expose(c)
	}
	return l.configure(command)
}

// configure handles the instructions that only set something in the configuration. It replaces values
// and never changes one in place: earlier steps and the base share them.
func (l *lowering) configure(command instructions.Command) error {
	switch c := command.(type) {
	case *instructions.EnvCommand:
		for _, pair := range c.Env {
			l.config.Env = setEnv(l.config.Env, pair.Key, pair.Value)
		}
		l.note("ENV", pairs(c.Env))
	case *instructions.LabelCommand:
		l.config.Labels = with(l.config.Labels, c.Labels)
		l.note("LABEL", pairs(c.Labels))
	case *instructions.MaintainerCommand:
		l.author = c.Maintainer
		l.note("MAINTAINER", c.Maintainer)
	case *instructions.CmdCommand:
		l.config.Cmd, l.config.ArgsEscaped, l.cmdSet = l.commandLine(c.ShellDependantCmdLine), false, true
		l.note("CMD", quoted(l.config.Cmd))
	case *instructions.EntrypointCommand:
		l.config.Entrypoint = l.commandLine(c.ShellDependantCmdLine)
		if !l.cmdSet {
			l.config.Cmd = nil // what the base would run is no argument of this entry point
		}
		l.note("ENTRYPOINT", quoted(l.config.Entrypoint))
	case *instructions.UserCommand:
		l.config.User = c.User
		l.note("USER", c.User)
	case *instructions.VolumeCommand:
		return l.volume(c)
	case *instructions.StopSignalCommand:
		if err := checkSignal(c.Signal); err != nil {
			return err
		}
		l.config.StopSignal = c.Signal
		l.note("STOPSIGNAL", c.Signal)
	case *instructions.ShellCommand:
		l.config.Shell = c.Shell
		l.note("SHELL", fmt.Sprint(c.Shell))
	case *instructions.HealthCheckCommand:
		l.healthcheck(c)
	case *instructions.OnbuildCommand:
		l.config.OnBuild = append(slices.Clip(l.config.OnBuild), c.Expression)
		l.note("ONBUILD", c.Expression)
	default:
		return fmt.Errorf("%s is not supported", strings.ToUpper(command.Name()))
	}
	return nil
}

// note sets how history shows the step.
func (l *lowering) note(name, rest string) { l.step.CreatedBy = strings.TrimSpace(name + " " + rest) }

func (l *lowering) volume(c *instructions.VolumeCommand) error {
	volumes := map[string]struct{}{}
	for name := range l.config.Volumes {
		volumes[name] = struct{}{}
	}
	for _, name := range c.Volumes {
		if strings.TrimSpace(name) == "" {
			return fmt.Errorf("VOLUME specified can not be an empty string")
		}
		volumes[name] = struct{}{}
	}
	l.config.Volumes = volumes
	l.note("VOLUME", fmt.Sprint(c.Volumes))
	return nil
}

func (l *lowering) healthcheck(c *instructions.HealthCheckCommand) {
	h := oci.Healthcheck{
		Test: c.Health.Test, Interval: c.Health.Interval, Timeout: c.Health.Timeout,
		StartPeriod: c.Health.StartPeriod, StartInterval: c.Health.StartInterval, Retries: c.Health.Retries,
	}
	l.config.Healthcheck = &h
	l.note("HEALTHCHECK", fmt.Sprintf("&{%q %q %q %q %q %d}", h.Test, h.Interval, h.Timeout, h.StartPeriod, h.StartInterval, h.Retries))
}

func (l *lowering) arg(c *instructions.ArgCommand) error {
	var texts []string
	for _, arg := range c.Args {
		value, ok := l.argValue(arg)
		if !ok {
			texts = append(texts, arg.Key)
			continue
		}
		l.args.set(arg.Key, value)
		if !slices.Contains(l.noted, arg.Key) {
			l.noted = append(slices.Clip(l.noted), arg.Key)
		}
		texts = append(texts, arg.Key+"="+value)
	}
	l.note("ARG", strings.Join(texts, " "))
	return nil
}

// argValue chooses an argument's value: given for this build, or the instruction's own, or the one of
// the global scope, where the platform's variables are too.
func (l *lowering) argValue(arg instructions.KeyValuePairOptional) (string, bool) {
	if value, ok := l.stage.plan.options.Args[arg.Key]; ok {
		return value, true
	}
	if arg.Value != nil {
		return *arg.Value, true
	}
	return l.stage.plan.globals.Get(arg.Key)
}

func (l *lowering) workdir(c *instructions.WorkdirCommand) error {
	if strings.TrimSpace(c.Path) == "" {
		return fmt.Errorf("WORKDIR needs a path that is not empty")
	}
	l.config.WorkingDir = l.absolute(c.Path)
	l.step.Op = &Workdir{Dir: l.config.WorkingDir}
	l.note("WORKDIR", l.config.WorkingDir)
	return nil
}

// absolute resolves a path against the working directory.
func (l *lowering) absolute(name string) string {
	if !path.IsAbs(name) {
		name = path.Join("/", l.config.WorkingDir, name)
	}
	return path.Clean(name)
}

// commandLine returns what a CMD or ENTRYPOINT runs: the shell form goes through the shell.
func (l *lowering) commandLine(c instructions.ShellDependantCmdLine) []string {
	if !c.PrependShell {
		return slices.Clone(c.CmdLine)
	}
	return append(slices.Clone(l.shell()), strings.Join(c.CmdLine, " "))
}

func (l *lowering) shell() []string {
	if len(l.config.Shell) > 0 {
		return l.config.Shell
	}
	return []string{"/bin/sh", "-c"}
}

func with(labels map[string]string, more instructions.KeyValuePairs) map[string]string {
	result := map[string]string{}
	for key, value := range labels {
		result[key] = value
	}
	for _, pair := range more {
		result[pair.Key] = pair.Value
	}
	return result
}

func pairs(list instructions.KeyValuePairs) string {
	texts := make([]string, len(list))
	for i, pair := range list {
		texts[i] = pair.String()
	}
	return strings.Join(texts, " ")
}

func quoted(args []string) string { return fmt.Sprintf("%q", args) }
