package plan

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
	"davit/ociruntime/step"
)

var update = flag.Bool("update", false, "write the golden files anew")

// facts of a host with hybrid cgroups whose root lacks CAP_SYS_RESOURCE.
func facts() Facts {
	return Facts{
		Bounding: 1<<41 - 1 - 1<<24, HardLimits: map[int]uint64{7: 4096}, AttachAt: "/",
		Hierarchies: []Hierarchy{
			{Controllers: []string{"cpu", "cpuacct"}, Dir: "/sys/fs/cgroup/cpu,cpuacct/davit/c"},
			{Controllers: []string{"name=systemd"}, Dir: "/sys/fs/cgroup/systemd/davit/c"},
			{V2: true, Dir: "/sys/fs/cgroup/unified/davit/c"},
		},
		Filter: []byte("filter"), FilterFlags: 4,
	}
}

func minimal() *specs.Spec {
	return &specs.Spec{
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{"sh", "-c", "true"}, Cwd: "/", Env: []string{"PATH=/bin"}},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}}},
	}
}

// Each testdata/NAME.json is a spec; NAME.golden is the plan it becomes.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no specs: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var spec specs.Spec
			if err := json.Unmarshal(text, &spec); err != nil {
				t.Fatal(err)
			}
			p, err := Build(&spec, facts())
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(file, ".json") + ".golden"
			got := render(p)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the plan differs from %s (go test -update writes it):\n%s", golden, got)
			}
		})
	}
}

// render writes a plan for people.
func render(p *Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "new namespaces %#x, joined %v, root first %v\n", p.New, p.Join, p.NeedsRoot)
	fmt.Fprintf(&b, "uids %v gids %v\n", p.UIDs, p.GIDs)
	for i, s := range p.Sources {
		fmt.Fprintf(&b, "file %d: %+v\n", step.FirstSource+i, s)
	}
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%s", s)
		for _, field := range []struct {
			name  string
			value any
			set   bool
		}{
			{"source", s.Source, s.Source != ""},
			{"list", s.List, len(s.List) > 0},
			{"env", s.Env, len(s.Env) > 0},
			{"words", s.Words, len(s.Words) > 0},
			{"data", string(s.Data), len(s.Data) > 0},
			{"file", s.File, s.File != 0},
			{"soft", true, s.Soft},
		} {
			if field.set {
				fmt.Fprintf(&b, " %s=%v", field.name, field.value)
			}
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "limits %v\n", p.Limits)
	for _, w := range p.Warnings {
		fmt.Fprintln(&b, "warning:", w)
	}
	return b.String()
}

func TestBadSpecs(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){
		"no-process":             func(s *specs.Spec) { s.Process = nil },
		"no-root":                func(s *specs.Spec) { s.Root = nil },
		"no-linux":               func(s *specs.Spec) { s.Linux = nil },
		"no-args":                func(s *specs.Spec) { s.Process.Args = nil },
		"relative-cwd":           func(s *specs.Spec) { s.Process.Cwd = "tmp" },
		"no-mount-namespace":     func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] },
		"namespace-twice":        func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0]) },
		"unknown-namespace":      func(s *specs.Spec) { s.Linux.Namespaces[1].Type = "moon" },
		"hostname-without-uts":   func(s *specs.Spec) { s.Hostname = "box" },
		"maps-without-user":      func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} },
		"sysctl-of-host":         func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.core_pattern": "|/x"} },
		"net-sysctl-without-net": func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"} },
		"sysctl-climbs":          func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../kernel/panic": "1"} },
		"unknown-rlimit":         func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_LUCK"}} },
		"rlimit-soft-above-hard": func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 1}} },
		"bind-without-source":    func(s *specs.Spec) { s.Mounts = []specs.Mount{{Destination: "/x", Type: "bind"}} },
		"mount-nowhere":          func(s *specs.Spec) { s.Mounts = []specs.Mount{{Type: "tmpfs"}} },
		"relative-mask":          func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"proc"} },
		"unknown-propagation":    func(s *specs.Spec) { s.Linux.RootfsPropagation = "wild" },
		"unknown-scheduler":      func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_LUCK"} },
	} {
		t.Run(name, func(t *testing.T) {
			s := minimal()
			change(s)
			if _, err := Build(s, facts()); !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Privileges go in an order that the kernel accepts, and nothing that needs them comes after.
func TestOrderOfPrivileges(t *testing.T) {
	for _, noNewPrivs := range []bool{false, true} {
		s := minimal()
		s.Process.NoNewPrivileges = noNewPrivs
		p, err := Build(s, facts())
		if err != nil {
			t.Fatal(err)
		}
		at := map[step.Op]int{}
		for i, s := range p.Steps {
			at[s.Op] = i
		}
		order := []step.Op{step.AttachRoot, step.PivotRoot, step.Bounding, step.Settle, step.Seccomp, step.User, step.Capabilities, step.Find, step.Park, step.Run}
		if noNewPrivs {
			order = []step.Op{step.AttachRoot, step.PivotRoot, step.Bounding, step.Settle, step.NoNewPrivs, step.User, step.Capabilities, step.Find, step.Park, step.Seccomp, step.Run}
		}
		for i := range order[1:] {
			if at[order[i]] >= at[order[i+1]] {
				t.Errorf("no_new_privs %v: %v does not come before %v", noNewPrivs, order[i], order[i+1])
			}
		}
	}
}

func TestExecPlan(t *testing.T) {
	s := minimal()
	p, err := BuildExec(s, &specs.Process{Args: []string{"id"}, Cwd: "/tmp", Terminal: true}, Facts{Bounding: 1<<41 - 1})
	if err != nil {
		t.Fatal(err)
	}
	if p.Steps[0].Op != step.Console || p.Steps[0].Path != "" || p.Steps[len(p.Steps)-1].Op != step.Run {
		t.Errorf("got %v", p.Steps)
	}
	for _, s := range p.Steps {
		if s.Op == step.Park || s.Op == step.PivotRoot || s.Op == step.AttachRoot {
			t.Errorf("an exec has the step %v", s)
		}
	}
}

func TestHostFileSystemsAreBoundWhereTheKernelRefusesNewOnes(t *testing.T) {
	s := minimal()
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Mounts = []specs.Mount{{Destination: "/sys", Type: "sysfs", Source: "sysfs"}, {Destination: "/proc", Type: "proc", Source: "proc"}}
	p, err := Build(s, facts())
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Sources) == 0 || p.Sources[0].Path != "/sys" || p.Sources[0].SetAll != readOnly || !p.Sources[0].Recursive {
		t.Errorf("got %+v", p.Sources)
	}
	for _, s := range p.Steps {
		if s.Op == step.MountNew && s.Type == "sysfs" {
			t.Error("a user namespace mounts sysfs of a network namespace that it does not own")
		}
	}
}
