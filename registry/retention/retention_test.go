package retention

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"davit/oci"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func digest(name string) oci.Digest { return oci.DigestOf([]byte(name)) }

// tags makes one a day: t1 moved a day ago, and so on, each naming a manifest of its name.
func tags(names ...string) (all []Tag) {
	for i, name := range names {
		all = append(all, Tag{Name: name, Digest: digest(name), Moved: now.Add(-time.Duration(i+1) * day)})
	}
	return all
}

func dropped(p Plan) string {
	var names []string
	for _, tag := range p.Tags {
		names = append(names, tag.Name+"/"+tag.Rule)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestTags(t *testing.T) {
	all := tags("b5", "v2", "b4", "b3", "v1", "b2", "latest", "b1")
	for name, c := range map[string]struct {
		rules []Rule
		want  string
	}{
		"no rule":          {nil, ""},
		"other repository": {[]Rule{{Name: "n", Repositories: []string{"x/*"}, Tags: []string{"*"}, KeepNewest: 1}}, ""},
		"newest":           {[]Rule{{Name: "n", Repositories: []string{"*"}, Tags: []string{"b*"}, KeepNewest: 2}}, "b1/n b2/n b3/n"},
		"younger":          {[]Rule{{Name: "y", Repositories: []string{"*"}, Tags: []string{"b*"}, KeepYounger: Age(5 * day)}}, "b1/y b2/y"},
		"either":           {[]Rule{{Name: "e", Repositories: []string{"*"}, Tags: []string{"b*"}, KeepNewest: 4, KeepYounger: Age(2 * day)}}, "b1/e"},
		"first decides": {[]Rule{
			{Name: "stay", Repositories: []string{"app"}, Tags: []string{"v*", "latest"}, KeepAll: true},
			{Name: "rest", Repositories: []string{"*"}, Tags: []string{"*"}, KeepNewest: 1},
		}, "b1/rest b2/rest b3/rest b4/rest"},
	} {
		t.Run(name, func(t *testing.T) {
			p := Decide(c.rules, State{Repository: "app", Tags: all}, now)
			if got := dropped(p); got != c.want || p.KeptTags+len(p.Tags) != len(all) {
				t.Errorf("goes: %s; want %s", got, c.want)
			}
		})
	}
	all[7].Immutable = true
	p := Decide([]Rule{{Name: "n", Repositories: []string{"*"}, Tags: []string{"*"}, KeepNewest: 1}}, State{Repository: "app", Tags: all}, now)
	if strings.Contains(dropped(p), "b1") || len(p.Tags) != 6 {
		t.Errorf("goes: %s", dropped(p))
	}
}

// Everything here is old; what goes is what nobody needs.
func TestManifests(t *testing.T) {
	old := now.Add(-10 * day)
	m := func(name string, subject string, children ...string) Manifest {
		one := Manifest{Digest: digest(name), Used: old}
		if subject != "" {
			one.Subject = digest(subject)
		}
		for _, child := range children {
			one.Children = append(one.Children, digest(child))
		}
		return one
	}
	young := m("young", "", "child of young")
	young.Used = now.Add(-time.Hour)
	signature := m("young signature", "signed")
	signature.Used = now.Add(-time.Hour)
	s := State{
		Repository: "app", Logged: []oci.Digest{digest("logged")},
		Tags: []Tag{{Name: "v1", Digest: digest("index"), Moved: old}},
		Manifests: []Manifest{
			m("index", "", "child", "elsewhere"), m("child", ""), m("signature", "child"), m("signature of signature", "signature"),
			m("logged", ""), young, m("child of young", ""), signature, m("signed", ""),
			m("loose", "", "child of loose", "child"), m("child of loose", ""), m("its signature", "loose"), m("of nothing", "gone"),
		},
	}
	p := Decide([]Rule{{Name: "u", Repositories: []string{"*"}, UntaggedAfter: Age(7 * day)}}, s, now)
	want := map[oci.Digest]bool{}
	for _, name := range []string{"loose", "child of loose", "its signature", "of nothing"} {
		want[digest(name)] = true
	}
	for _, gone := range p.Manifests {
		if !want[gone.Digest] {
			t.Errorf("%s goes", gone.Digest)
		}
	}
	if len(p.Manifests) != len(want) || p.Kept != len(s.Manifests)-len(want) {
		t.Errorf("%d go, %d stay", len(p.Manifests), p.Kept)
	}
	if p := Decide([]Rule{{Name: "t", Repositories: []string{"*"}, Tags: []string{"*"}, KeepAll: true}}, s, now); len(p.Manifests) != 0 {
		t.Error("without a rule about them untagged manifests go")
	}
}

func TestRulesAreChecked(t *testing.T) {
	for rule, good := range map[string]bool{
		`{"name":"a","repositories":["*"],"tags":["b*"],"keepNewest":3,"keepYounger":"30d"}`: true,
		`{"name":"a","repositories":["*"],"untaggedAfter":"2w"}`:                             true,
		`{"name":"a","repositories":["*"],"tags":["b*"]}`:                                    false,
		`{"name":"a","repositories":["*"],"keepNewest":3}`:                                   false,
		`{"name":"a","repositories":["*"]}`:                                                  false,
		`{"name":"a","repositories":["*"],"untaggedAfter":"0s"}`:                             false,
		`{"name":"a","repositories":["*"],"untaggedAfter":7}`:                                false,
		`{"name":"a","untaggedAfter":"7d"}`:                                                  false,
	} {
		var rules []Rule
		err := json.Unmarshal(fmt.Appendf(nil, "[%s]", rule), &rules)
		if err == nil {
			err = Check(rules)
		}
		if (err == nil) != good {
			t.Errorf("%s: %v", rule, err)
		}
	}
}
