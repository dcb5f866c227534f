package script

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	"rsc.io/script"
	"rsc.io/script/scripttest"
)

func TestScripts(t *testing.T) {
	e := newEngine(t)
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	commands := e.commands()
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			before := e.residue(t)
			e.run(t, commands, file)
			e.wantNothingLeft(t, before)
		})
	}
}

func (e *engine) run(t *testing.T, commands map[string]script.Cmd, file string) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	work := t.TempDir()
	state, err := script.NewState(ctx, work, append(e.env(), "REPOSITORY="+repository(t), "WORK="+work))
	if err != nil {
		t.Fatal(err)
	}
	if err := state.ExtractFiles(archive); err != nil {
		t.Fatal(err)
	}
	defer endProcesses(t, work)
	engine := &script.Engine{Cmds: commands, Conds: scripttest.DefaultConds(), Quiet: !testing.Verbose()}
	scripttest.Run(t, engine, state, file, strings.NewReader(string(archive.Comment)))
}

func (e *engine) commands() map[string]script.Cmd {
	commands := scripttest.DefaultCmds()
	delete(commands, "sleep")
	delete(commands, "skip")
	kill := func(cmd *exec.Cmd) error { return cmd.Process.Kill() }
	commands["davit"] = script.Program(filepath.Join(e.bin, "davit"), kill, time.Second)
	commands["docker"] = script.Program("docker", kill, time.Second)
	commands["retry"] = retry()
	commands["engine"] = script.Command(script.CmdUsage{Summary: "restart or kill the engine", Args: "restart|kill [flag...]"}, e.control)
	return commands
}

func (e *engine) control(_ *script.State, args ...string) (script.WaitFunc, error) {
	signals := map[string]syscall.Signal{"restart": syscall.SIGTERM, "kill": syscall.SIGKILL}
	if len(args) == 0 || signals[args[0]] == 0 {
		return nil, script.ErrUsage
	}
	if err := e.stop(signals[args[0]]); err != nil {
		return nil, err
	}
	return nil, e.start(args[1:]...)
}

// retry runs a program until it succeeds; its last output is what stdout and stderr then match.
func retry() script.Cmd {
	usage := script.CmdUsage{Summary: "run a program until it succeeds, ten seconds at most", Args: "program [args...]"}
	return script.Command(usage, func(s *script.State, args ...string) (script.WaitFunc, error) {
		if len(args) == 0 {
			return nil, script.ErrUsage
		}
		return func(s *script.State) (stdout, stderr string, err error) {
			ctx, cancel := context.WithTimeout(s.Context(), 10*time.Second)
			defer cancel()
			for {
				var out, errs strings.Builder
				cmd := exec.CommandContext(ctx, args[0], args[1:]...)
				cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = s.Environ(), s.Getwd(), &out, &errs
				if err = cmd.Run(); err == nil || ctx.Err() != nil {
					return out.String(), errs.String(), err
				}
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		}, nil
	})
}

// residue is what containers leave in the kernel and in the engine when something goes wrong.
func (e *engine) residue(t *testing.T) map[string][]string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	groups, err := exec.Command("sh", "-c", "find /sys/fs/cgroup -mindepth 2 -type d -path '*"+filepath.Base(e.root)+"/*' | sort").Output()
	if err != nil {
		t.Fatal(err)
	}
	davit := filepath.Join(e.bin, "davit")
	return map[string][]string{
		"mount":         strings.Split(string(mounts), "\n"),
		"interface":     links(t),
		"control group": strings.Fields(string(groups)),
		"container":     strings.Fields(e.must(t, davit, "ps", "-aq")),
		"volume":        strings.Fields(e.must(t, davit, "volume", "ls", "-q")),
		"network":       strings.Fields(e.must(t, davit, "network", "ls", "-q")),
	}
}

// links are the names of network devices.
func links(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("ip", "-o", "link").Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.SplitSeq(string(out), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 {
			name, _, _ := strings.Cut(strings.TrimSuffix(fields[1], ":"), "@")
			names = append(names, name)
		}
	}
	return names
}

// wantNothingLeft compares with what was there before. Control groups and interfaces of a container that
// has just been removed may take the kernel a moment.
func (e *engine) wantNothingLeft(t *testing.T, before map[string][]string) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(5 * time.Second); ; {
		left = nil
		for kind, now := range e.residue(t) {
			for _, thing := range now {
				if !slices.Contains(before[kind], thing) {
					left = append(left, fmt.Sprintf("%s %s", kind, thing))
				}
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	for _, thing := range left {
		t.Errorf("left behind: %s", thing)
	}
	if len(left) > 0 {
		e.tidy(t, before)
	}
}

// tidy removes what a script that failed has made, so that the next finds what this one found.
func (e *engine) tidy(t *testing.T, before map[string][]string) {
	t.Helper()
	davit := filepath.Join(e.bin, "davit")
	for _, kind := range []struct {
		name   string
		remove []string
	}{{"container", []string{"rm", "-f", "-v"}}, {"network", []string{"network", "rm"}}, {"volume", []string{"volume", "rm"}}} {
		for _, id := range e.residue(t)[kind.name] {
			if slices.Contains(before[kind.name], id) {
				continue
			}
			if out, err := e.command(davit, append(kind.remove, id)...).CombinedOutput(); err != nil {
				t.Logf("remove %s %s: %v\n%s", kind.name, id, err, out)
			}
		}
	}
}
