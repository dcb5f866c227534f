package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"davit/oci"
	"davit/registry/audit"
	"davit/registry/quota"
)

// audited runs a registry with rules and an audit log; records returns those that were written since.
func audited(t *testing.T, o Options, rules ...Rule) (p *policyFixture, records func(n int) []audit.Record) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.json")
	log, err := audit.Open(path, discarded())
	if err != nil {
		t.Fatal(err)
	}
	p = &policyFixture{path: filepath.Join(t.TempDir(), "rules.json")}
	p.writeRules(t, rules...)
	if p.policy, err = NewPolicy(p.path, newKey(), discarded()); err != nil {
		t.Fatal(err)
	}
	o.Auth, o.Audit, o.NoDeltas = p.policy, log, true
	p.fixture = startWith(t, o)
	t.Cleanup(func() { p.registry.closeAudit(t.Context()) })
	seen := 0
	return p, func(n int) (found []audit.Record) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); log.Written.Load() < int64(seen+n) && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(strings.TrimSpace(string(content)), "\n") {
			var r audit.Record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			found = append(found, r)
		}
		found = found[seen:]
		if seen += len(found); len(found) != n {
			t.Fatalf("%d records, want %d: %+v", len(found), n, found)
		}
		return found
	}
}

func TestAuditLog(t *testing.T) {
	p, records := audited(t, Options{HistoryKeep: time.Hour, Immutable: []string{"final"}, Quota: quota.Rule{Tags: 3}}, frozenRule, publicRule, adaRule)
	const who = "Authorization"
	ada := "Basic YWRhOmFkYQ=="
	index := `{"schemaVersion":2,"manifests":[]}`
	d := oci.DigestOf([]byte(index))
	put := func(status int, repo, tag, as string) {
		t.Helper()
		p.want(status, "PUT", "/v2/"+repo+"/manifests/"+tag, strings.NewReader(index), "Content-Type", oci.MediaTypeIndex, who, as)
	}
	check := func(want ...audit.Record) {
		t.Helper()
		for i, got := range records(len(want)) {
			w := want[i]
			if time.Since(got.Time) > time.Minute || got.Address != "127.0.0.1" || got.Agent == "" || got.Status == 0 || (got.Error == "") != (got.Result == audit.OK) {
				t.Errorf("incomplete: %+v", got)
			}
			got.Time, got.Address, got.Agent, got.Status, got.Error, got.Bytes = w.Time, "", "", 0, "", 0
			if got != w {
				t.Errorf("record %d: %+v\nwant %+v", i, got, w)
			}
		}
	}
	manifest := func(action, result, rule, user, repo, tag string) audit.Record {
		return audit.Record{Action: action, Result: result, Rule: rule, User: user, Repository: repo, Kind: "manifest", Reference: tag, Digest: d}
	}
	denied := func(action, rule, user, repo, tag string) audit.Record {
		r := manifest(action, audit.Denied, rule, user, repo, tag)
		r.Digest = ""
		return r
	}
	put(401, "public/app", "v1", "")
	put(201, "public/app", "v1", ada)
	put(201, "public/app", "final", ada)
	p.want(200, "GET", "/v2/public/app/manifests/v1", nil)
	p.want(200, "HEAD", "/v2/public/app/manifests/v1", nil)
	p.want(404, "GET", "/v2/public/app/manifests/none", nil)
	check(manifest("push", audit.OK, "", "ada", "public/app", "v1"), manifest("tag", audit.OK, "", "ada", "public/app", "final"),
		manifest("pull", audit.OK, "", "", "public/app", "v1"))
	put(403, "frozen", "v1", ada)
	put(403, "public/app", "v2", "Basic Ym9iOmJvYg==") // bob
	put(401, "public/app", "v2", "Basic Ym9iOmV2ZQ==")
	p.want(403, "GET", "/v2/_catalog", nil, who, "Basic Ym9iOmJvYg==")
	check(denied("push", "frozen", "ada", "frozen", "v1"), denied("push", "no rule allows it", "bob", "public/app", "v2"),
		denied("push", "", "bob", "public/app", "v2"), audit.Record{Action: "list", Result: audit.Denied, Rule: "no rule allows it", User: "bob"})

	p.want(403, "DELETE", "/v2/public/app/manifests/"+string(d), nil, who, ada)
	p.want(202, "DELETE", "/v2/public/app/manifests/v1", nil, who, ada)
	p.want(200, "POST", "/davit/v1/public/app/tags/v1/rollback?digest="+string(d), nil, who, ada)
	check(manifest("delete", audit.Denied, "immutable", "ada", "public/app", string(d)),
		denied2ok(denied("delete", "", "ada", "public/app", "v1")),
		audit.Record{Action: "rollback", Result: audit.OK, User: "ada", Repository: "public/app", Reference: "v1", Digest: d})
	put(201, "public/app", "v3", ada)
	put(403, "public/app", "v4", ada)
	check(manifest("tag", audit.OK, "", "ada", "public/app", "v3"), denied("tag", "quota default", "ada", "public/app", "v4"))

	blob := oci.DigestOf([]byte("layer"))
	header, _ := p.want(202, "POST", "/v2/public/app/blobs/uploads/", nil, who, ada)
	p.want(202, "PATCH", header.Get("Location"), strings.NewReader("layer"), who, ada)
	p.want(201, "PUT", header.Get("Location")+"?digest="+string(blob), nil, who, ada)
	p.want(200, "GET", "/v2/public/app/blobs/"+string(blob), nil)
	p.want(202, "DELETE", "/v2/public/app/blobs/"+string(blob), nil, who, ada)
	one := audit.Record{Action: "push", Result: audit.OK, User: "ada", Repository: "public/app", Kind: "blob", Digest: blob}
	pull, deleted := one, one
	pull.Action, pull.User, pull.Reference = "pull", "", string(blob)
	deleted.Action, deleted.Reference = "delete", string(blob)
	check(one, pull, deleted)
}

func denied2ok(r audit.Record) audit.Record {
	r.Result = audit.OK
	return r
}

// Logins: for a token, by password with the first request, and on a page; wrong ones with the name that was given.
func TestAuditOfLogins(t *testing.T) {
	p, records := audited(t, Options{HistoryKeep: time.Hour}, adaRule)
	p.as("", "GET", "/v2/", 401)
	p.as("", "GET", "/token", 200)
	p.as("ada:ada", "GET", "/v2/", 200)
	p.as("ada:ada", "GET", "/token", 200)
	p.as("eve:eve", "GET", "/token", 401)
	p.want(200, "POST", "/token", strings.NewReader(url.Values{"grant_type": {"password"}, "username": {"ada"}, "password": {"ada"}}.Encode()), "Content-Type", "application/x-www-form-urlencoded")
	for i, r := range records(4) {
		user, want := "ada", audit.OK
		if i == 2 {
			user, want = "eve", audit.Denied
		}
		if r.Action != "login" || r.User != user || r.Result != want {
			t.Errorf("login %d: %+v", i, r)
		}
	}
	p.want(201, "PUT", "/v2/app/manifests/v1", strings.NewReader(`{"schemaVersion":2,"manifests":[]}`), "Content-Type", oci.MediaTypeIndex, "Authorization", "Basic YWRhOmFkYQ==")
	form := url.Values{"tag": {"v1"}, "digest": {string(oci.DigestOf([]byte(`{"schemaVersion":2,"manifests":[]}`)))}}
	r, err := http.NewRequest("POST", p.url+"/r/app/-/rollback", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("ada", "ada")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	got := records(2)[1]
	if got.Action != "rollback" || got.Result != audit.OK || got.User != "ada" || got.Repository != "app" || got.Reference != "v1" || string(got.Digest) != form.Get("digest") {
		t.Errorf("rollback on a page: %+v", got)
	}
}

// While the disk of the audit log is full, all is served as ever, and the metrics tell.
func TestAuditOnFullDisk(t *testing.T) {
	log, err := audit.Open("/dev/full", discarded())
	if err != nil {
		t.Fatal(err)
	}
	f := startWith(t, Options{Audit: log, NoDeltas: true})
	f.pushImage("app", "v1", "layer")
	f.want(200, "GET", "/v2/app/manifests/v1", nil)
	metrics := ""
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(metrics, "davit_registry_audit_failures_total 1\n") && time.Now().Before(deadline); {
		_, metrics = f.want(200, "GET", "/metrics", nil)
	}
	if !strings.Contains(metrics, "davit_registry_audit_failures_total 1\n") || !strings.Contains(metrics, "davit_registry_audit_records_total 0\n") {
		t.Error(metrics)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := log.Close(ended); err != nil || log.Lost.Load() == 0 {
		t.Errorf("closed: %v, %d lost", err, log.Lost.Load())
	}
}
