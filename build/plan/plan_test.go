package plan

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"davit/oci"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testOptions() Options {
	amd64 := oci.Platform{OS: "linux", Architecture: "amd64"}
	return Options{Platform: oci.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, BuildPlatform: amd64}
}

// dump writes a plan and its steps over an empty base, one line for each thing that a reader would
// want to compare.
func dump(p *Plan) (string, error) {
	var b strings.Builder
	for _, g := range p.Globals {
		fmt.Fprintf(&b, "global %d: %s\n", g.Line, g.Text)
	}
	states := map[*Stage]State{}
	for _, s := range p.Needed {
		base := Scratch()
		if s.Base.Stage != nil {
			base = states[s.Base.Stage]
		}
		fmt.Fprintf(&b, "\nstage %d %s (%d/%d) from %s for %s\n", s.Index, s.Title(), s.Number(), p.Total, refName(s.Base), s.Platform)
		lowered, err := s.Lower(base)
		if err != nil {
			return "", err
		}
		for _, step := range lowered.Steps {
			fmt.Fprintf(&b, "%d: %s\n  history %s\n", step.Line, step.Text, step.CreatedBy)
			dumpOp(&b, step.Op)
		}
		config, err := json.Marshal(lowered.State.Config)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  = %s author %q\n", config, lowered.State.Author)
		states[s] = lowered.State
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "\nwarning %d %s: %s", w.Line, w.Rule, w.Text)
	}
	fmt.Fprintf(&b, "\nunused %q\n", p.Unused)
	return b.String(), nil
}

func refName(r Ref) string {
	switch {
	case r.Stage != nil:
		return "stage " + r.Stage.Title()
	case r.Image != "":
		return "image " + r.Image + " " + r.Platform
	}
	return "nothing"
}

func dumpOp(b *strings.Builder, op any) {
	switch o := op.(type) {
	case *Copy:
		fmt.Fprintf(b, "  copy %s %q to %q", refName(o.From), o.Sources, o.Dest)
		for _, i := range o.Inline {
			fmt.Fprintf(b, " inline %s=%q", i.Name, i.Content)
		}
		fmt.Fprintf(b, " add=%v chown=%q chmod=%q link=%v parents=%v exclude=%q checksum=%q\n", o.Add, o.Chown, o.Chmod, o.Link, o.Parents, o.Exclude, o.Checksum)
	case *Run:
		fmt.Fprintf(b, "  run %q env %q proxy %q in %q as %q net %q\n", o.Args, o.Env, o.Proxy, o.Dir, o.User, o.Network)
		if o.Script != "" {
			fmt.Fprintf(b, "  script %q\n", o.Script)
		}
		for _, m := range o.Mounts {
			fmt.Fprintf(b, "  mount %s %q of %s at %q ro=%v id=%q sharing=%q env=%q size=%d\n", m.Type, m.Source, refName(m.From), m.Target, m.ReadOnly, m.ID, m.Sharing, m.Env, m.Size)
		}
	case *Workdir:
		fmt.Fprintf(b, "  workdir %q\n", o.Dir)
	}
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.dockerfile")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			o := testOptions()
			o.Args = map[string]string{"GIVEN": "given", "http_proxy": "proxy", "LOST": "x"}
			p, err := Parse(content, o)
			if err != nil {
				t.Fatal(err)
			}
			got, err := dump(p)
			if err != nil {
				t.Fatal(err)
			}
			again, err := dump(p)
			if err != nil || again != got {
				t.Errorf("lowering a second time gives something else: %v\n%s", err, again)
			}
			compare(t, strings.TrimSuffix(file, ".dockerfile")+".golden", got)
		})
	}
}

func compare(t *testing.T, golden, got string) {
	t.Helper()
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
		t.Errorf("differs from %s:\n%s", golden, got)
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	for _, test := range []struct{ dockerfile, want string }{
		{"", "dockerfile parse error: the Dockerfile cannot be empty"},
		{"ARG x\n", "dockerfile parse error: no build stage: the Dockerfile has no FROM"},
		{"FROM a\nRUN\n", "dockerfile parse error on line 2: RUN requires at least one argument"},
		{"FROM $nothing\n", "dockerfile parse error on line 1: base name ($nothing) should not be blank: no value for nothing (is there an ARG before the first FROM?)"},
		{"FROM --platform=a/b/c/d x\n", "dockerfile parse error on line 1: invalid platform"},
		{"FROM a\n\nCOPY --from=7 a b\n", "dockerfile parse error on line 3: invalid from flag value 7: it is not the number of an earlier stage"},
		{"FROM a\nARG X\nCOPY --from=$X a b\n", "dockerfile parse error on line 3: variable expansion is not supported for --from"},
		{"FROM a\nEXPOSE 99999\n", "dockerfile parse error on line 2: invalid containerPort: 99999"},
		{"FROM a\nEXPOSE 80/icmp\n", "dockerfile parse error on line 2: invalid proto: icmp"},
		{"FROM a\nSTOPSIGNAL SIGNOPE\n", "dockerfile parse error on line 2: invalid signal: SIGNOPE"},
		{"FROM a\nADD git://host/x.git /x\n", "dockerfile parse error on line 2: ADD git://host/x.git: git repositories are not supported as sources"},
		{"FROM a\nADD --checksum=sha256:1 f /x\n", "dockerfile parse error on line 2: checksum can't be specified"},
		{"FROM a\nONBUILD ONBUILD RUN x\n", "dockerfile parse error on line 2: Chaining ONBUILD"},
		{"FROM a\nRUN --mount=type=nope,target=/x y\n", "dockerfile parse error on line 2: unsupported mount type \"nope\""},
		{"FROM a\nRUN --mount=type=cache y\n", "dockerfile parse error on line 2: invalid mount target"},
		{"FROM a\nENV x=${y:?is needed}\n", "dockerfile parse error on line 2: "},
		{"FROM a\nVOLUME [\"\"]\n", "dockerfile parse error on line 2: VOLUME specified can not be an empty string"},
		{"FROM a\nSHELL /bin/bash\n", "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form"},
	} {
		p, err := Parse([]byte(test.dockerfile), testOptions())
		if err == nil {
			_, err = p.Target.Lower(Scratch())
		}
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%q: error %v, want %q", test.dockerfile, err, test.want)
		}
	}
}

func TestTriggersComeFirst(t *testing.T) {
	p, err := Parse([]byte("FROM base\nRUN own\n"), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	lowered, err := p.Target.Lower(State{Config: oci.Config{OnBuild: []string{"ENV A=1", "RUN echo $A"}}})
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, s := range lowered.Steps {
		texts = append(texts, fmt.Sprint(s.Text, " ", s.Trigger, " ", s.Line))
	}
	if got := strings.Join(texts, "|"); got != "ENV A=1 true 1|RUN echo $A true 1|RUN own false 2" {
		t.Errorf("steps %s", got)
	}
	if lowered.State.Config.OnBuild != nil {
		t.Errorf("triggers stay: %q", lowered.State.Config.OnBuild)
	}
	_, err = p.Target.Lower(State{Config: oci.Config{OnBuild: []string{"NOPE x"}}})
	if err == nil || !strings.Contains(err.Error(), `line 1: ONBUILD trigger "NOPE x"`) {
		t.Errorf("error %v", err)
	}
}

func TestLowerLeavesTheBaseAlone(t *testing.T) {
	base := oci.Config{
		Env: []string{"A=1"}, Labels: map[string]string{"l": "1"}, Volumes: map[string]struct{}{"/v": {}},
		ExposedPorts: map[string]struct{}{"1/tcp": {}}, OnBuild: []string{}, Cmd: []string{"c"},
	}
	before, _ := json.Marshal(base)
	p, err := Parse([]byte("FROM base\nENV A=2 B=3\nLABEL l=2 m=3\nVOLUME /w\nEXPOSE 2\nENTRYPOINT [\"e\"]\nONBUILD RUN x\n"), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	lowered, err := p.Target.Lower(State{Config: base})
	if err != nil {
		t.Fatal(err)
	}
	if after, _ := json.Marshal(base); string(after) != string(before) {
		t.Errorf("the base changed from %s to %s", before, after)
	}
	if lowered.State.Config.Cmd != nil {
		t.Error("ENTRYPOINT keeps the base's CMD")
	}
}

func TestParsePorts(t *testing.T) {
	for spec, want := range map[string]string{"80": "[80/tcp]", "53/UDP": "[53/udp]", "1-3/sctp": "[1/sctp 2/sctp 3/sctp]", "80/": "[80/tcp]"} {
		got, err := ParsePorts(spec)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %v", spec, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.dockerfile")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, dockerfile []byte) {
		p, err := Parse(dockerfile, testOptions())
		if err != nil {
			return
		}
		for _, s := range p.Needed {
			s.Lower(Scratch())
		}
	})
}
