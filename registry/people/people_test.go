package people

import (
	"errors"
	"strings"
	"testing"
	"time"

	"davit/oci/errdefs"
	"davit/registry/storage"
	"davit/registry/storage/dir"
)

func openStore(t *testing.T) storage.Store {
	t.Helper()
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

var ada = Person{Name: "ada", Issuer: "https://login.test", Subject: "1", Groups: []string{"staff"}}

func TestTokens(t *testing.T) {
	ctx, s := t.Context(), New(openStore(t))
	if err := s.SignedIn(ctx, ada); err != nil {
		t.Fatal(err)
	}
	secret, made, err := s.Make(ctx, "ada", " laptop ", time.Hour)
	if err != nil || made.Label != "laptop" || !IsToken(secret) {
		t.Fatalf("%+v, %v", made, err)
	}
	if p, id, err := s.Check(ctx, "ada", secret); err != nil || id != made.ID || p.Subject != "1" || p.Groups[0] != "staff" {
		t.Errorf("the token is refused: %+v, %q, %v", p, id, err)
	}
	for _, c := range [][2]string{
		{"bob", secret},
		{"ada", secret + "x"},
		{"ada", secret[:len(secret)-1]},
		{"ada", prefix},
		{"ada", prefix + "../../x_y"},
		{"ada", ""},
		{"ada", strings.Replace(secret, made.ID, "aaaaaaaaaaaaaaaa", 1)},
	} {
		if _, _, err := s.Check(ctx, c[0], c[1]); !errors.Is(err, errdefs.ErrUnauthorized) {
			t.Errorf("%v: %v", c, err)
		}
	}
	kept, err := s.records.GetRecord(ctx, tokenKey("ada", made.ID))
	if err != nil || strings.Contains(string(kept), secret[len(prefix)+17:]) {
		t.Errorf("the secret is kept: %s, %v", kept, err)
	}
	if err := s.Revoke(ctx, "bob", made.ID); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("bob revokes it: %v", err)
	}
	if err := s.Revoke(ctx, "ada", "../person"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a path is revoked: %v", err)
	}
	if err := s.Revoke(ctx, "ada", made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Holds(ctx, "ada", made.ID); !errors.Is(err, errdefs.ErrUnauthorized) {
		t.Errorf("after it was revoked: %v", err)
	}
}

func TestBounds(t *testing.T) {
	ctx, s := t.Context(), New(openStore(t))
	for _, life := range []time.Duration{0, -time.Hour, LongestLife + 1} {
		if _, _, err := s.Make(ctx, "ada", "x", life); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("a life of %s: %v", life, err)
		}
	}
	for _, label := range []string{"", "  ", strings.Repeat("x", longestLabel+1)} {
		if _, _, err := s.Make(ctx, "ada", label, time.Hour); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("label %q: %v", label, err)
		}
	}
	for range MostTokens {
		if _, _, err := s.Make(ctx, "ada", "x", time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Make(ctx, "ada", "x", time.Hour); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("one more: %v", err)
	}
	if all, err := s.Tokens(ctx, "ada"); err != nil || len(all) != MostTokens {
		t.Errorf("%d tokens, %v", len(all), err)
	}
}

// A name stays with the one who had it first; who that is now may have other groups.
func TestNamesStay(t *testing.T) {
	ctx, s := t.Context(), New(openStore(t))
	moved := ada
	moved.Groups = nil
	for i, p := range []Person{ada, moved} {
		if err := s.SignedIn(ctx, p); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Person(ctx, "ada"); err != nil || len(got.Groups) != 1-i {
			t.Errorf("%+v, %v", got, err)
		}
	}
	for _, other := range []Person{{Name: "ada", Issuer: ada.Issuer, Subject: "2"}, {Name: "ada", Issuer: "https://else.test", Subject: "1"}} {
		if err := s.SignedIn(ctx, other); !errors.Is(err, errdefs.ErrConflict) {
			t.Errorf("%+v: %v", other, err)
		}
	}
}

// What another process changes is seen after a few seconds, and what this one changes at once, also by those
// who were reading meanwhile.
func TestOtherProcesses(t *testing.T) {
	ctx, store := t.Context(), openStore(t)
	one, other := New(store), New(store)
	if err := one.SignedIn(ctx, ada); err != nil {
		t.Fatal(err)
	}
	_, made, err := one.Make(ctx, "ada", "x", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Holds(ctx, "ada", made.ID); err != nil {
		t.Fatal(err)
	}
	changes := one.changes
	if err := one.Revoke(ctx, "ada", made.ID); err != nil {
		t.Fatal(err)
	}
	key := tokenKey("ada", made.ID)
	one.remember(key, seen{[]byte(`{}`), time.Now()}, changes)
	if _, known := one.seen[key]; known {
		t.Error("what was read before the change is remembered after it")
	}
	old := other.seen[key]
	old.at = old.at.Add(-seenLife)
	other.seen[key] = old
	if _, err := other.Holds(ctx, "ada", made.ID); !errors.Is(err, errdefs.ErrUnauthorized) {
		t.Errorf("the other process, later: %v", err)
	}
}

func TestForget(t *testing.T) {
	ctx, s := t.Context(), New(openStore(t))
	if err := s.Forget(ctx, "ada"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("nobody is forgotten: %v", err)
	}
	if err := s.SignedIn(ctx, ada); err != nil {
		t.Fatal(err)
	}
	secret, _, err := s.Make(ctx, "ada", "x", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Forget(ctx, "ada"); err != nil {
		t.Fatal(err)
	}
	if err := s.SignedIn(ctx, Person{Name: "ada", Issuer: ada.Issuer, Subject: "2"}); err != nil {
		t.Errorf("the name is not free: %v", err)
	}
	if _, _, err := s.Check(ctx, "ada", secret); !errors.Is(err, errdefs.ErrUnauthorized) {
		t.Errorf("the next one's name with the former one's token: %v", err)
	}
}
