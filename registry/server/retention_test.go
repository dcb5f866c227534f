package server

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"davit/oci"
	"davit/registry/audit"
	"davit/registry/quota"
	"davit/registry/retention"
	"davit/registry/storage/bucket"
)

// retaining returns an Authorizer whose file has rules of retention and nothing else.
func retaining(t *testing.T, rules ...retention.Rule) *Policy {
	t.Helper()
	p := &policyFixture{path: filepath.Join(t.TempDir(), "rules.json")}
	p.write(t, Rules{Retention: rules})
	policy, err := NewPolicy(p.path, newKey(), discarded())
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// ageAll makes all manifests and moves of tags lie in the past.
func (f *fixture) ageAll(repo string, by time.Duration) {
	f.t.Helper()
	then := time.Now().Add(-by)
	manifests, err := f.store.ListRecords(f.t.Context(), "repo/"+repo+"/_manifests")
	if err != nil {
		f.t.Fatal(err)
	}
	for _, name := range manifests {
		if err := os.Chtimes(filepath.Join(f.root, "records/repo", repo, "_manifests", "="+name), then, then); err != nil {
			f.t.Fatal(err)
		}
	}
}

func TestRetention(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.json")
	log, err := audit.Open(path, discarded())
	if err != nil {
		t.Fatal(err)
	}
	f := startWith(t, Options{NoDeltas: true, HistoryKeep: time.Hour, Audit: log, Immutable: []string{"final"}, Auth: retaining(
		t,
		retention.Rule{Name: "newest", Repositories: []string{"app"}, Tags: []string{"*"}, KeepNewest: 2},
		retention.Rule{Name: "untagged", Repositories: []string{"app"}, UntaggedAfter: retention.Age(24 * time.Hour)},
	)})
	f.pushImage("app", "final", "zero")
	f.pushImage("app", "v1", "one")
	f.pushImage("app", "v2", "two")
	f.pushImage("app", "v3", "three")
	f.pushImage("other", "v1", "one")
	loose := f.pushImage("app", "loose", "loose")
	f.want(202, "DELETE", "/v2/app/manifests/loose", nil)

	_, plan := f.want(200, "GET", "/davit/v1/app/retention", nil)
	if !strings.Contains(plan, `"tags":[{"tag":"v1"`) || strings.Contains(plan, "final") || !strings.Contains(plan, `"manifests":[]`) {
		t.Errorf("plan: %s", plan)
	}
	f.want(200, "GET", "/v2/app/manifests/v1", nil)
	retain := func() {
		t.Helper()
		if err := f.registry.Retain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.ageAll("app", 48*time.Hour)
	retain()
	f.want(404, "GET", "/v2/app/manifests/v1", nil)
	for _, name := range []string{"app/manifests/v2", "app/manifests/v3", "app/manifests/final", "other/manifests/v1", "app/manifests/" + string(loose)} {
		f.want(200, "GET", "/v2/"+name, nil) // the history of loose needs it
	}
	if _, history := f.want(200, "GET", "/davit/v1/app/tags/v1/history", nil); !strings.Contains(history, `"by":"retention"`) {
		t.Errorf("history: %s", history)
	}
	f.registry.options.HistoryKeep = 0
	retain() // loose was asked for by digest just now
	f.want(200, "HEAD", "/v2/app/manifests/"+string(loose), nil)
	f.ageAll("app", 48*time.Hour)
	_, done := f.want(200, "DELETE", "/davit/v1/app/retention", nil)
	if strings.Count(done, `"rule":"untagged"`) != 1 || !strings.Contains(done, string(loose)) {
		t.Errorf("done: %s", done)
	}
	f.want(404, "GET", "/v2/app/manifests/"+string(loose), nil)
	// What retention took an index brings back.
	f.want(201, "PUT", "/v2/app/manifests/all", strings.NewReader(`{"schemaVersion":2,"manifests":[{"digest":"`+string(loose)+`"}]}`), "Content-Type", oci.MediaTypeIndex)
	f.want(200, "GET", "/v2/app/manifests/"+string(loose), nil)

	f.registry.closeAudit(t.Context())
	content, err := os.ReadFile(path)
	if err != nil || strings.Count(string(content), `"rule":"untagged","user":"retention"`) != 2 || !strings.Contains(string(content), `"rule":"newest","user":"retention","repository":"app","kind":"manifest","reference":"v1"`) {
		t.Errorf("audit log: %s, %v", content, err)
	}
	if _, metrics := f.want(200, "GET", "/metrics", nil); !strings.Contains(metrics, "davit_registry_retention_manifests_total 2\n") {
		t.Error("the metrics do not count")
	}
}

// Retention gives quotas room.
func TestRetentionGivesRoom(t *testing.T) {
	f := startWith(t, Options{NoDeltas: true, Quota: quota.Rule{Tags: 3}, Auth: retaining(
		t, retention.Rule{Name: "newest", Repositories: []string{"*"}, Tags: []string{"*"}, KeepNewest: 1},
	)})
	for _, tag := range []string{"v1", "v2", "v3"} {
		f.pushImage("app", tag, tag)
	}
	f.denied("PUT", "/v2/app/manifests/v4", `{"schemaVersion":2,"manifests":[]}`, "3 are used")
	f.want(200, "DELETE", "/davit/v1/app/retention", nil)
	f.pushImage("app", "v4", "v4")
}

// hammered is the retention that runs while images are pushed.
type hammered struct {
	*cluster
	refresh time.Duration
	certain time.Duration // how long after a look at a manifest an index can name it

	pushed, checked, retired atomic.Int64
}

// Retention and collectors run in all processes while indexes are pushed that name manifests which were
// there when the client looked: what an index names is there after it was pushed, and when pushes end just
// what the rules keep is left.
func TestRetentionOfSeveralProcesses(t *testing.T) {
	policy := retaining(
		t,
		retention.Rule{Name: "stable", Repositories: []string{"*"}, Tags: []string{"stable-*"}, KeepAll: true},
		retention.Rule{Name: "builds", Repositories: []string{"*"}, Tags: []string{"*"}, KeepNewest: 3},
		retention.Rule{Name: "untagged", Repositories: []string{"*"}, UntaggedAfter: 1},
	)
	onEachStore(t, Options{Auth: policy, NoDeltas: true, NoPages: true}, func(c *cluster) {
		h, long := &hammered{cluster: c, refresh: 100 * time.Millisecond}, 3*time.Second
		h.certain = 3 * h.refresh
		if _, coarse := c.store.(*bucket.Store); coarse { // its times are exact to a second
			h.refresh, long = 1500*time.Millisecond, 7*time.Second
			h.certain = 3*h.refresh - 2*time.Second
		}
		var keepers, pushers sync.WaitGroup
		over, end := make(chan struct{}), time.Now().Add(long)
		for _, registry := range c.registries {
			registry.refresh = h.refresh
			keepers.Go(func() { h.keep(registry, over) })
		}
		for p := range 8 {
			pushers.Go(func() {
				for i := 0; time.Now().Before(end) && !c.t.Failed(); i++ {
					h.pushIndex(p, i)
				}
			})
		}
		pushers.Wait()
		close(over)
		keepers.Wait()
		c.t.Logf("%d indexes pushed, %d checked, %d manifests retired", h.pushed.Load(), h.checked.Load(), h.retired.Load())
		if h.checked.Load() == 0 || h.retired.Load() == 0 {
			c.t.Error("too little happened: the test shows nothing")
		}
		h.settle()
	})
}

func (h *hammered) keep(registry *Server, over chan struct{}) {
	for {
		select {
		case <-over:
			return
		default:
		}
		plan, err := registry.retain(h.t.Context(), registry.repository("app"))
		if err == nil {
			_, err = registry.Collect(h.t.Context(), 0)
		}
		if err != nil {
			h.t.Error(err)
			return
		}
		h.retired.Add(int64(len(plan.Manifests)))
	}
}

// pushIndex looks for a manifest, pushes it where it is not there, waits, and names it in an index that two
// tags name. Retention takes it when it was not looked at for twice the refresh, of which one may have been
// over when the client looked, and keeps it at hand for twice the refresh.
func (h *hammered) pushIndex(p, i int) {
	child := fmt.Sprintf(`{"schemaVersion":2,"manifests":[],"annotations":{"child":"%d"}}`, rand.IntN(30))
	d := oci.DigestOf([]byte(child))
	path := "/v2/app/manifests/" + string(d)
	looked := time.Now()
	if status, _, _ := h.do("HEAD", path, nil); status != 200 {
		if status, _, body := h.do("PUT", path, []byte(child), "Content-Type", oci.MediaTypeIndex); status != 201 {
			h.t.Errorf("child: %d %s", status, body)
		}
	}
	<-time.After(time.Duration(rand.Int64N(int64(h.certain)))) // as slow clients do
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"digest":"%s"}],"annotations":{"n":"%d %d"}}`, d, p, i)
	stable, build := fmt.Sprintf("stable-%d", p), fmt.Sprintf("b-%d-%d", p, i)
	status, _, body := h.do("PUT", "/v2/app/manifests/"+string(oci.DigestOf([]byte(index)))+"?tag="+stable+"&tag="+build, []byte(index), "Content-Type", oci.MediaTypeIndex)
	if status != 201 {
		h.t.Errorf("index: %d %s", status, body)
	}
	h.pushed.Add(1)
	if time.Since(looked) > h.certain {
		return
	}
	h.checked.Add(1)
	for range 3 {
		if status, _, body := h.do("GET", "/v2/app/manifests/"+stable, nil); status != 200 || body != index {
			h.t.Errorf("%s: %d %s", stable, status, body)
		}
		if status, _, body := h.do("GET", path, nil); status != 200 {
			h.t.Errorf("what %s names: %d %s", stable, status, body)
		}
	}
}

// settle lets the rules take what is left to take, and looks at the rest.
func (h *hammered) settle() {
	registry := h.registries[0]
	registry.refresh = 0
	for range 3 { // tags, manifests, their children's last users
		if _, err := registry.retain(h.t.Context(), registry.repository("app")); err != nil {
			h.t.Fatal(err)
		}
	}
	tags, err := h.store.ListRecords(h.t.Context(), "repo/app/_tags")
	if err != nil {
		h.t.Fatal(err)
	}
	needed := map[string]bool{}
	for _, tag := range tags {
		d, err := registry.repository("app").tag(h.t.Context(), tag)
		if err != nil {
			h.t.Fatal(err)
		}
		e, err := registry.repository("app").manifest(h.t.Context(), d)
		if err != nil {
			h.t.Fatalf("%s: %v", tag, err)
		}
		needed[dashed(d)] = true
		for _, child := range e.Manifests {
			needed[dashed(child)] = true
		}
	}
	left, err := h.store.ListRecords(h.t.Context(), "repo/app/_manifests")
	if err != nil {
		h.t.Fatal(err)
	}
	builds := slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return strings.HasPrefix(tag, "stable-") })
	if len(builds) != 3 || len(tags) != 11 || len(left) != len(needed) {
		names, _ := json.Marshal(tags)
		h.t.Errorf("tags %s; %d manifests are left, %d needed", names, len(left), len(needed))
	}
}
