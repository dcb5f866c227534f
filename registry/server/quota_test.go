package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"davit/oci"
	"davit/registry/quota"
)

// quotas runs a registry with a file of quotas and no users.
func quotas(t *testing.T, rules ...quota.Rule) *policyFixture {
	t.Helper()
	p := &policyFixture{path: filepath.Join(t.TempDir(), "rules.json")}
	p.write(t, Rules{Quotas: rules})
	policy, err := NewPolicy(p.path, newKey(), discarded())
	if err != nil {
		t.Fatal(err)
	}
	p.policy, p.fixture = policy, startWith(t, Options{Auth: policy, HistoryKeep: time.Hour, NoDeltas: true})
	return p
}

func (p *policyFixture) write(t *testing.T, rules Rules) {
	t.Helper()
	content, err := json.Marshal(rules)
	if err == nil {
		err = os.WriteFile(p.path, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func upload(repo, content string) string {
	return "/v2/" + repo + "/blobs/uploads/?digest=" + string(oci.DigestOf([]byte(content)))
}

// denied fails unless the answer is the specification's refusal with all the words.
func (f *fixture) denied(method, path, body string, words ...string) {
	f.t.Helper()
	headers := []string{}
	if strings.Contains(path, "/manifests/") {
		headers = append(headers, "Content-Type", oci.MediaTypeIndex)
	}
	_, answer := f.want(403, method, path, strings.NewReader(body), headers...)
	for _, word := range append(words, `"code":"DENIED"`) {
		if !strings.Contains(answer, word) {
			f.t.Errorf("%s %s: %s lacks %q", method, path, answer, word)
		}
	}
}

func TestQuotaOfBytes(t *testing.T) {
	f := quotas(t, quota.Rule{Name: "small", Repositories: []string{"small/*"}, Bytes: 10_000})
	big := strings.Repeat("x", 6_000)
	first := f.pushImage("small/app", "v1", big)
	second := f.pushImage("small/app", "v2", big) // counts once
	f.pushImage("small/other", "v1", big)
	f.pushImage("large/app", "v1", big, strings.Repeat("y", 60_000))
	f.denied("POST", upload("small/app", strings.Repeat("z", 6_000)), strings.Repeat("z", 6_000),
		`quota \"small\" of 9.766KiB for small/app`, "are used, 5.859KiB more are needed", "delete images")
	f.denied("POST", "/v2/small/app/blobs/uploads/?from=large/app&mount="+string(oci.DigestOf([]byte(strings.Repeat("y", 60_000)))), "", "58.59KiB more")
	header, _ := f.want(202, "POST", "/v2/small/app/blobs/uploads/", nil)
	location := header.Get("Location")
	f.want(403, "PATCH", location, struct{ *strings.Reader }{strings.NewReader(strings.Repeat("s", 1<<20))}) // of no known length
	f.want(404, "GET", location, nil)

	_, answer := f.want(200, "GET", "/davit/v1/small/app/quota", nil)
	if !strings.Contains(answer, `"usedTags":2`) || !strings.Contains(answer, `"quotas":[{"name":"small"`) {
		t.Errorf("quota: %s", answer)
	}
	// Deleting gives room at once, though the image can be brought back.
	f.want(202, "DELETE", "/v2/small/app/manifests/"+string(first), nil)
	f.pushBlob("small/app", big) // again
	f.want(202, "DELETE", "/v2/small/app/manifests/"+string(second), nil)
	f.pushImage("small/app", "v3", strings.Repeat("z", 6_000))
	f.want(200, "POST", "/davit/v1/small/app/tags/v1/rollback?digest="+string(first), nil)
	f.denied("POST", upload("small/app", "1"), "1", "are used, 1B more")
	_, metrics := f.want(200, "GET", "/metrics", nil)
	if !strings.Contains(metrics, "davit_registry_quota_denied_total 4\n") {
		t.Error(metrics)
	}
}

func TestQuotaOfTags(t *testing.T) {
	f := quotas(t, quota.Rule{Name: "team", Repositories: []string{"team/*"}, Together: true, Tags: 3})
	index := func(n string) string { return `{"schemaVersion":2,"manifests":[],"annotations":{"n":"` + n + `"}}` }
	put := func(repo, tag, n string) {
		t.Helper()
		f.want(201, "PUT", "/v2/"+repo+"/manifests/"+tag, strings.NewReader(index(n)), "Content-Type", oci.MediaTypeIndex)
	}
	put("team/a", "v1", "1")
	put("team/a", "v2", "2")
	put("team/b", "v1", "3")
	put("team/b", "v1", "4") // moves
	f.denied("PUT", "/v2/team/b/manifests/v2", index("5"), `quota \"team\" of 3 tags for team/* together: 3 are used, 1 more are needed`, "delete tags")
	put("other", "v1", "6")
	f.want(202, "DELETE", "/v2/team/a/manifests/v2", nil)
	put("team/b", "v2", "5")
	// New rules hold at once.
	f.write(t, Rules{Quotas: []quota.Rule{{Name: "all", Repositories: []string{"*"}, Tags: 1}}})
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(f.path, later, later); err != nil {
		t.Fatal(err)
	}
	f.policy.state.Load().looked = time.Time{}
	f.denied("PUT", "/v2/other/manifests/v2", index("7"), `quota \"all\" of 1 tags for other`)
}

// Pushes at the same time, of what does not fit together: what is let in fits, and some of it is.
func TestQuotaHoldsAgainstMany(t *testing.T) {
	onEachStore(t, Options{Quota: quota.Rule{Bytes: 100_000}}, func(c *cluster) {
		var pushers sync.WaitGroup
		for p := range 20 {
			pushers.Go(func() {
				content := strings.Repeat(string(rune('a'+p)), 15_000)
				r, err := http.NewRequest("POST", c.urls[0]+upload("app", content), strings.NewReader(content))
				if err != nil {
					t.Error(err)
					return
				}
				response, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				if err := response.Body.Close(); err != nil || response.StatusCode != 201 && response.StatusCode != 403 {
					t.Errorf("push: %d, %v", response.StatusCode, err)
				}
			})
		}
		pushers.Wait()
		// Another process counts the same, and refuses too: nothing is left but the store.
		holding, err := (&holdings{Server: c.registries[1], known: map[string]*tally{}}).Holding(t.Context(), "app")
		if err != nil || holding.Bytes() != 90_000 {
			t.Errorf("%d bytes are held, want 90000: %v", holding.Bytes(), err)
		}
		content := strings.Repeat("1", 15_000)
		r, err := http.NewRequest("POST", c.urls[1]+upload("app", content), strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 403 {
			t.Errorf("another registry lets in what does not fit: %d", response.StatusCode)
		}
	})
}

func TestQuotaFileIsChecked(t *testing.T) {
	for _, bad := range []string{`[{"name":"a","bytes":"1G"}]`, `[{"name":"a","repositories":["*"]}]`, `[{"name":"a","repositories":["*"],"bytes":"1X"}]`} {
		path := filepath.Join(t.TempDir(), "rules.json")
		if err := os.WriteFile(path, fmt.Appendf(nil, `{"quotas":%s}`, bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := NewPolicy(path, newKey(), discarded()); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

// skopeo shows the sentence.
func TestQuotaWithSkopeo(t *testing.T) {
	f := startWith(t, Options{Quota: quota.Rule{Bytes: 10_000}})
	source := start(t, nil)
	source.pushImage("app", "v1", noise(20_000))
	from, to := strings.TrimPrefix(source.url, "http://"), strings.TrimPrefix(f.url, "http://")
	out, err := exec.Command("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+from+"/app:v1", "docker://"+to+"/app:v1").CombinedOutput()
	if err == nil || !strings.Contains(string(out), `quota \"default\" of 9.766KiB for app`) && !strings.Contains(string(out), `quota "default" of 9.766KiB for app`) {
		t.Errorf("skopeo: %v: %s", err, out)
	}
}
