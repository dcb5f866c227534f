package image

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"davit/oci"
	"davit/oci/errdefs"
)

// ApplyChanges applies Dockerfile instructions (CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD
// STOPSIGNAL USER VOLUME WORKDIR) to a configuration, as --change of commit and import does. Errors are
// errdefs.ErrInvalid.
func ApplyChanges(config oci.Config, changes []string) (oci.Config, error) {
	config = cloneConfig(config)
	for _, change := range changes {
		if strings.TrimSpace(change) == "" {
			continue
		}
		result, err := parser.Parse(bytes.NewReader([]byte(change)))
		if err != nil {
			return oci.Config{}, errdefs.Invalid("invalid change %q: %w", change, err)
		}
		for _, node := range result.AST.Children {
			command, err := instructions.ParseCommand(node)
			if err != nil {
				return oci.Config{}, errdefs.Invalid("invalid change %q: %w", change, err)
			}
			if err := expand(command, config.Env, result.EscapeToken); err != nil {
				return oci.Config{}, errdefs.Invalid("invalid change %q: %w", change, err)
			}
			if err := applyChange(&config, command); err != nil {
				return oci.Config{}, err
			}
		}
	}
	return config, nil
}

// expand takes quotes away and puts variables of env in, as the instruction wants it.
func expand(command instructions.Command, env []string, escape rune) error {
	words, ok := command.(instructions.SupportsSingleWordExpansion)
	if !ok {
		return nil
	}
	lex := shell.NewLex(escape)
	known := shell.EnvsFromSlice(env)
	return words.Expand(func(word string) (string, error) {
		text, _, err := lex.ProcessWord(word, known)
		return text, err
	})
}

func cloneConfig(c oci.Config) oci.Config {
	c.Env, c.OnBuild = slices.Clone(c.Env), slices.Clone(c.OnBuild)
	c.ExposedPorts, c.Volumes, c.Labels = maps.Clone(c.ExposedPorts), maps.Clone(c.Volumes), maps.Clone(c.Labels)
	return c
}

func applyChange(c *oci.Config, command instructions.Command) error {
	switch change := command.(type) {
	case *instructions.CmdCommand:
		c.Cmd = commandLine(c, change.ShellDependantCmdLine)
	case *instructions.EntrypointCommand:
		c.Entrypoint = commandLine(c, change.ShellDependantCmdLine)
	case *instructions.EnvCommand:
		for _, pair := range change.Env {
			c.Env = setEnv(c.Env, pair.Key, pair.Value)
		}
	case *instructions.ExposeCommand:
		return expose(c, change.Ports)
	case *instructions.HealthCheckCommand:
		health := oci.Healthcheck(*change.Health)
		c.Healthcheck = &health
	case *instructions.LabelCommand:
		for _, pair := range change.Labels {
			c.Labels = with(c.Labels, pair.Key, pair.Value)
		}
	case *instructions.OnbuildCommand:
		c.OnBuild = append(c.OnBuild, change.Expression)
	case *instructions.StopSignalCommand:
		c.StopSignal = change.Signal
	case *instructions.UserCommand:
		c.User = change.User
	case *instructions.VolumeCommand:
		for _, volume := range change.Volumes {
			c.Volumes = with(c.Volumes, volume, struct{}{})
		}
	case *instructions.WorkdirCommand:
		c.WorkingDir = workdir(c.WorkingDir, change.Path)
	default:
		return errdefs.Invalid("%s is not a valid change command", strings.ToUpper(command.Name()))
	}
	return nil
}

func commandLine(c *oci.Config, line instructions.ShellDependantCmdLine) []string {
	if !line.PrependShell {
		return line.CmdLine
	}
	shell := c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), line.CmdLine...)
}

func setEnv(env []string, key, value string) []string {
	for i, pair := range env {
		if name, _, _ := strings.Cut(pair, "="); name == key {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

// expose adds port[-port][/protocol] specifications, each single port by itself.
func expose(c *oci.Config, ports []string) error {
	for _, spec := range ports {
		expanded, err := expandPorts(spec)
		if err != nil {
			return err
		}
		for _, port := range expanded {
			c.ExposedPorts = with(c.ExposedPorts, port, struct{}{})
		}
	}
	return nil
}

func workdir(from, to string) string {
	if strings.HasPrefix(to, "/") {
		return to
	}
	return strings.TrimRight(from, "/") + "/" + to
}

func with[V any](m map[string]V, key string, value V) map[string]V {
	if m == nil {
		m = map[string]V{}
	}
	m[key] = value
	return m
}
