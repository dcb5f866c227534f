package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"davit/oci"
	"davit/registry/pattern"
)

func (f *fixture) history(repo, tag string) []Move {
	f.t.Helper()
	_, body := f.want(200, "GET", "/davit/v1/"+repo+"/tags/"+tag+"/history", nil)
	var answer TagHistory
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		f.t.Fatal(err)
	}
	return answer.History
}

func (f *fixture) wantHistory(repo, tag string, want ...oci.Digest) {
	f.t.Helper()
	moves := f.history(repo, tag)
	if len(moves) != len(want) {
		f.t.Fatalf("history of %s has %+v, want %v", tag, moves, want)
	}
	for i, move := range moves {
		if move.Digest != want[i] || move.By != "127.0.0.1" || time.Since(move.Time) > time.Minute {
			f.t.Errorf("@{%d} is %+v, want %s", i, move, want[i])
		}
	}
}

func (f *fixture) wantTag(repo, tag string, want oci.Digest) {
	f.t.Helper()
	header, _ := f.want(200, "GET", "/v2/"+repo+"/manifests/"+tag, nil)
	if got := header.Get("Docker-Content-Digest"); got != string(want) {
		f.t.Fatalf("tag %s names %s, want %s", tag, got, want)
	}
}

func (f *fixture) rollback(status int, repo, tag string, d oci.Digest) {
	f.t.Helper()
	f.want(status, "POST", "/davit/v1/"+repo+"/tags/"+tag+"/rollback?digest="+string(d), nil)
}

func TestHistoryAndRollback(t *testing.T) {
	f := startWith(t, Options{HistoryKeep: time.Hour})
	one := f.pushImage("team/app", "v", "base", "one")
	two := f.pushImage("team/app", "v", "base", "two")
	f.pushImage("team/app", "v", "base", "two") // no move
	f.wantHistory("team/app", "v", two, one)
	f.rollback(200, "team/app", "v", one)
	f.wantTag("team/app", "v", one)
	f.wantHistory("team/app", "v", one, two, one)
	f.rollback(404, "team/app", "v", oci.DigestOf([]byte("never")))
	f.rollback(400, "team/app", "v", "sha256:no")
	f.want(202, "DELETE", "/v2/team/app/manifests/v", nil)
	f.want(404, "GET", "/v2/team/app/manifests/v", nil)
	f.wantHistory("team/app", "v", "", one, two, one)
	f.rollback(200, "team/app", "v", two)
	f.wantTag("team/app", "v", two)
	f.want(404, "GET", "/davit/v1/team/app/tags/none/history", nil)
	f.want(404, "GET", "/davit/v1/none/history", nil)
	_, body := f.want(200, "GET", "/davit/v1/team/app/history", nil)
	if !strings.Contains(body, `"tag":"v"`) || strings.Count(body, `"time"`) != 5 {
		t.Fatal(body)
	}
}

// A manifest deleted by its digest comes back with its tag, layers and referrers, after a collection too;
// when the retention is over it goes.
func TestDeletedComesBackInsideTheRetention(t *testing.T) {
	f := startWith(t, Options{HistoryKeep: time.Hour})
	d := f.pushImage("app", "v", "base", "layer")
	f.want(202, "DELETE", "/v2/app/manifests/"+string(d), nil)
	f.want(404, "GET", "/v2/app/manifests/"+string(d), nil)
	f.age("_history", "_deleted")
	if _, err := f.registry.Collect(context.Background(), time.Hour); err != nil {
		t.Fatal(err)
	}
	f.rollback(200, "app", "v", d)
	f.wantTag("app", "v", d)
	for _, layer := range []string{"base", "layer"} {
		f.want(200, "GET", "/v2/app/blobs/"+string(oci.DigestOf([]byte(layer))), nil)
	}
	f.want(202, "DELETE", "/v2/app/manifests/"+string(d), nil)
	f.registry.options.HistoryKeep = 0
	f.age()
	done, err := f.registry.Collect(context.Background(), time.Hour)
	if err != nil || done.Blobs != 4 {
		t.Fatalf("after the retention %+v, %v", done, err)
	}
	f.want(404, "GET", "/davit/v1/app/tags/v/history", nil)
	f.rollback(404, "app", "v", d)
}

// Of a tag that lives, moves whose time ended before the retention go; the present one stays.
func TestHistoryIsPruned(t *testing.T) {
	f := startWith(t, Options{HistoryKeep: 0})
	f.pushImage("app", "v", "one")
	two := f.pushImage("app", "v", "two")
	if _, err := f.registry.Collect(context.Background(), time.Hour); err != nil {
		t.Fatal(err)
	}
	f.wantHistory("app", "v", two)
}

func TestImmutableTags(t *testing.T) {
	f := startWith(t, Options{Immutable: []string{"team/*:v*"}})
	one := f.pushImage("team/a", "v1", "one")
	f.pushImage("team/a", "v1", "one") // the same again is no change
	f.pushImage("team/a", "latest", "one")
	f.pushImage("other", "v1", "one")
	for _, at := range []string{"v1", string(one)} {
		f.want(403, "DELETE", "/v2/team/a/manifests/"+at, nil)
	}
	two := f.pushImage("team/a", "latest", "two")
	_, content := f.want(200, "GET", "/v2/team/a/manifests/"+string(two), nil)
	_, body := f.want(403, "PUT", "/v2/team/a/manifests/v1", strings.NewReader(content), "Content-Type", oci.MediaTypeManifest)
	if !strings.Contains(body, "DENIED") || !strings.Contains(body, "immutable") {
		t.Fatal(body)
	}
	f.wantTag("team/a", "v1", one)
	f.pushImage("other", "v1", "two")
}

// Many push the same tag at once: the log's last move is what the tag names. Of an immutable tag one push
// wins, and the log has no other.
func TestConcurrentPushesOfATag(t *testing.T) {
	f := startWith(t, Options{Immutable: []string{"final"}})
	for _, tag := range []string{"moving", "final"} {
		var pushers sync.WaitGroup
		for i := range 8 {
			pushers.Go(func() {
				index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[],"annotations":{"n":"%d"}}`, oci.MediaTypeIndex, i)
				status, _, body := f.do("PUT", "/v2/app/manifests/"+tag, strings.NewReader(index), "Content-Type", oci.MediaTypeIndex)
				if status != 201 && (tag == "moving" || status != 403) {
					t.Errorf("push of %s: %d %s", tag, status, body)
				}
			})
		}
		pushers.Wait()
		moves := f.history("app", tag)
		f.wantTag("app", tag, moves[0].Digest)
		if want := map[string]int{"moving": 8, "final": 1}[tag]; len(moves) != want {
			t.Errorf("%s moved %d times, want %d", tag, len(moves), want)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{{"a", "a", true}, {"a", "ab", false}, {"a*", "ab/c", true}, {"*c", "ab/c", true}, {"a*b*c", "axxbxc", true}, {"a*b*c", "axc", false}, {"*", "", true}} {
		if got := pattern.Match(c.pattern, c.s); got != c.want {
			t.Errorf("matches(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
}

func TestClientAddress(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	for address, want := range map[string]string{"[::1]:80": "::1", "10.0.0.1:5": "10.0.0.1"} {
		if r.RemoteAddr = address; clientAddress(r) != want {
			t.Errorf("%s is %s", address, clientAddress(r))
		}
	}
}
