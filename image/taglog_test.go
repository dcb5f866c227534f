package image_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"davit/image"
	"davit/internal/registrytest"
	"davit/oci/errdefs"
)

// moves is a tag's log in short: "cause ID", the latest first.
func (w *world) moves(tag string) []string {
	w.t.Helper()
	log, err := w.TagLog(w.t.Context(), parse(w.t, tag))
	must(w.t, err)
	var list []string
	for _, m := range log {
		list = append(list, strings.TrimSpace(fmt.Sprint(m.By, " ", m.ID.Short(), " ", map[bool]string{false: "gone"}[m.Here])))
	}
	return list
}

func TestTagLog(t *testing.T) {
	w := newWorld(t)
	one := w.named("app", map[string]string{"v": "1"})
	two := w.named("app", map[string]string{"v": "2"})
	must(t, w.Tag(t.Context(), "app", parse(t, "app:latest"), image.ByTag)) // goes nowhere
	for name, want := range map[string]image.Image{"app@{0}": two, "app@{1}": one, "app:latest@{1}": one} {
		if got, err := w.Resolve(t.Context(), name, nil); err != nil || got.ID != want.ID {
			t.Errorf("%s is %s, %v; want %s", name, got.ID, err, want.ID)
		}
	}
	for range 2 { // there and back
		_, err := w.Rollback(t.Context(), parse(t, "app"), 1)
		must(t, err)
	}
	want := []string{"rollback " + two.ID.Short(), "rollback " + one.ID.Short(), " " + two.ID.Short(), " " + one.ID.Short()}
	for i := range want {
		want[i] = strings.TrimSpace(want[i])
	}
	if got := w.moves("app"); !slices.Equal(got, want) {
		t.Errorf("log %q, want %q", got, want)
	}
	for name, text := range map[string]string{
		"app@{4}":   "the log of app:latest goes back to @{3} only; see: davit tag --history app:latest",
		"other@{1}": "no image has ever been tagged other:latest here",
	} {
		if _, err := w.Resolve(t.Context(), name, nil); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.Rollback(t.Context(), parse(t, "app"), 0); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("rollback to now: %v", err)
	}
}

// A tag that was removed can be had again as long as its image is here; an image that was pruned cannot.
func TestTagLogAfterRemoval(t *testing.T) {
	w := newWorld(t)
	one := w.named("app:1", map[string]string{"v": "1"})
	must(t, w.Tag(t.Context(), "app:1", parse(t, "kept:1"), image.ByTag))
	_, err := w.Remove(t.Context(), "app:1", image.RemoveOptions{})
	must(t, err)
	if _, err := w.Resolve(t.Context(), "app:1@{0}", nil); err == nil || !strings.Contains(err.Error(), "the tag was removed then") {
		t.Errorf("removed tag: %v", err)
	}
	_, err = w.Rollback(t.Context(), parse(t, "app:1"), 1)
	must(t, err)
	if got, err := w.Resolve(t.Context(), "app:1", nil); err != nil || got.ID != one.ID {
		t.Errorf("rolled back to %s, %v", got.ID, err)
	}
	two := w.named("app:1", map[string]string{"v": "2"})
	_, err = w.Remove(t.Context(), "kept:1", image.RemoveOptions{})
	must(t, err)
	_, err = w.Prune(t.Context(), image.PruneOptions{})
	must(t, err)
	want := []string{two.ID.Short(), "rollback " + one.ID.Short() + " gone", "deletion  gone", one.ID.Short() + " gone"}
	if got := w.moves("app:1"); !slices.Equal(got, want) {
		t.Errorf("log %q, want %q", got, want)
	}
	_, err = w.Rollback(t.Context(), parse(t, "app:1"), 1)
	if err == nil || !strings.Contains(err.Error(), "has been removed here; it was made here, and there is no registry to pull it from") {
		t.Errorf("pruned image: %v", err)
	}
}

// What was pulled can be pulled again by digest, and the error says how.
func TestTagLogOfPulls(t *testing.T) {
	a, b, host := newWorld(t), newWorld(t), registrytest.Start(t, registrytest.Options{})
	name := host + "/app:1"
	for _, v := range []string{"1", "2"} {
		a.named(name, map[string]string{"v": v})
		a.push(name, &recorder{})
		_, err := b.pull(name, &recorder{})
		must(t, err)
	}
	past, err := b.Resolve(t.Context(), name+"@{1}", nil)
	must(t, err)
	_, err = b.Remove(t.Context(), name+"@{1}", image.RemoveOptions{Force: true})
	must(t, err)
	_, err = b.Rollback(t.Context(), parse(t, name), 1)
	if err == nil || !strings.Contains(err.Error(), "get it again with: davit pull "+host+"/app@sha256:") {
		t.Fatalf("removed image: %v", err)
	}
	_, again, _ := strings.Cut(err.Error(), "davit pull ")
	_, err = b.pull(again, &recorder{})
	must(t, err)
	_, err = b.Rollback(t.Context(), parse(t, name), 1)
	must(t, err)
	if got, err := b.Resolve(t.Context(), name, nil); err != nil || got.ID != past.ID {
		t.Errorf("rolled back to %s, %v; want %s", got.ID, err, past.ID)
	}
}
