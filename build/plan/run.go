package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// ScriptPath is where a here-document that begins with "#!" lies while it runs.
const ScriptPath = "/dev/pipes/"

func (l *lowering) run(c *instructions.RunCommand) error {
	op := &Run{
		Dir: l.config.WorkingDir, User: l.config.User,
		Network: instructions.GetNetwork(c), Insecure: instructions.GetSecurity(c) == instructions.SecurityInsecure,
	}
	if op.Dir == "" {
		op.Dir = "/"
	}
	if len(instructions.GetDevices(c)) > 0 {
		return fmt.Errorf("RUN --device is not supported")
	}
	if strings.TrimSpace(strings.Join(c.CmdLine, " ")) == "" {
		return fmt.Errorf("RUN requires at least one argument")
	}
	l.runArgs(op, c.ShellDependantCmdLine)
	for _, m := range instructions.GetMounts(c) {
		mount, err := l.mount(m)
		if err != nil {
			return err
		}
		op.Mounts = append(op.Mounts, mount)
	}
	l.environment(op)
	l.step.Op = op
	l.noteRun(c, op)
	return nil
}

// runArgs makes the command line. A lone here-document is the script itself: run by the shell, or as a
// program when it begins with "#!". Any other is handed to the shell as it was written.
func (l *lowering) runArgs(op *Run, c instructions.ShellDependantCmdLine) {
	if !c.PrependShell || len(c.Files) == 0 {
		op.Args = l.commandLine(c)
		return
	}
	if len(c.CmdLine) == 1 && parser.MustParseHeredoc(c.CmdLine[0]) != nil {
		content := c.Files[0].Data
		if c.Files[0].Chomp {
			content = parser.ChompHeredocContent(content)
		}
		if strings.HasPrefix(content, "#!") {
			op.Script, op.Args = content, []string{ScriptPath + c.Files[0].Name}
			return
		}
		op.Args = append(slices.Clone(l.shell()), content)
		return
	}
	text := strings.Join(c.CmdLine, " ")
	for _, file := range c.Files {
		text += "\n" + file.Data + file.Name
	}
	op.Args = append(slices.Clone(l.shell()), text)
}

// environment gives the process the image's variables, and the build's arguments where they do not
// hide one of those.
func (l *lowering) environment(op *Run) {
	v := newVariables()
	v.setAll(l.config.Env)
	op.Env = slices.Clone(l.config.Env)
	for _, name := range l.noted {
		if _, hidden := v.Get(name); !hidden {
			op.Env = append(op.Env, name+"="+l.args.values[name])
		}
	}
	for _, name := range proxyArgs() {
		value, given := l.stage.plan.options.Args[name]
		_, hidden := v.Get(name)
		if given && !hidden && !slices.Contains(l.noted, name) {
			op.Proxy = append(op.Proxy, name+"="+value)
		}
	}
}

func (l *lowering) noteRun(c *instructions.RunCommand, op *Run) {
	words := []string{"RUN"}
	if len(l.noted) > 0 {
		words = append(words, fmt.Sprintf("|%d", len(l.noted)))
		for _, name := range l.noted {
			words = append(words, name+"="+l.args.values[name])
		}
	}
	text := strings.Join(op.Args, " ")
	if op.Script != "" {
		text = strings.Join(c.CmdLine, " ") + " (" + firstLine(op.Script) + ")"
	}
	l.step.CreatedBy = strings.Join(append(words, text, "# buildkit"), " ")
}

func firstLine(s string) string {
	first, _, _ := strings.Cut(s, "\n")
	return first
}

func (l *lowering) mount(m *instructions.Mount) (Mount, error) {
	from, err := l.stage.ref(m.From)
	if err != nil {
		return Mount{}, err
	}
	mount := Mount{
		Type: string(m.Type), From: from, Source: m.Source, ReadOnly: m.ReadOnly, Size: m.SizeLimit,
		ID: m.CacheID, Sharing: string(m.CacheSharing), Required: m.Required, Mode: m.Mode, UID: m.UID, GID: m.GID,
	}
	if m.Env != nil {
		mount.Env = *m.Env
	}
	if m.Target != "" {
		mount.Target = l.absolute(m.Target)
	}
	switch m.Type {
	case instructions.MountTypeSecret, instructions.MountTypeSSH:
		secretMount(&mount, m)
		return mount, nil
	case instructions.MountTypeCache:
		if mount.ID == "" {
			mount.ID = mount.Target
		}
		if mount.Sharing == "" {
			mount.Sharing = string(instructions.MountSharingShared)
		}
	}
	if mount.Target == "" || mount.Target == "/" {
		return Mount{}, fmt.Errorf("invalid mount target %q", m.Target)
	}
	return mount, nil
}

// secretMount fills in the defaults of a secret: its name is the last element of its target, and the
// target is /run/secrets/ and its name, unless it goes into a variable.
func secretMount(mount *Mount, m *instructions.Mount) {
	if mount.ID == "" {
		mount.ID = m.Source
	}
	if mount.ID == "" && m.Target != "" {
		mount.ID = m.Target[strings.LastIndexByte(m.Target, '/')+1:]
	}
	if m.Env != nil && mount.Env == "" {
		mount.Env = mount.ID
	}
	if mount.Target == "" && m.Env == nil && m.Type == instructions.MountTypeSecret {
		mount.Target = "/run/secrets/" + mount.ID[strings.LastIndexByte(mount.ID, '/')+1:]
	}
}
