package cli

import (
	"slices"
	"testing"

	"github.com/moby/moby/api/types/image"
)

func TestImageNames(t *testing.T) {
	const d, e = "sha256:1", "sha256:2"
	for name, test := range map[string]struct {
		image   image.Summary
		digests bool
		want    []imageName
	}{
		"nameless":           {image.Summary{}, true, []imageName{{none, none, none}}},
		"nameless as of old": {image.Summary{RepoTags: []string{"<none>:<none>"}, RepoDigests: []string{"<none>@<none>"}}, false, []imageName{{none, none, none}}},
		"tags":               {image.Summary{RepoTags: []string{"host:5000/a:1", "b:2"}}, false, []imageName{{"host:5000/a", "1", none}, {"b", "2", none}}},
		"hidden digests":     {image.Summary{RepoTags: []string{"a:1"}, RepoDigests: []string{"a@" + d}}, false, []imageName{{"a", "1", none}}},
		"shown digests": {
			image.Summary{RepoTags: []string{"a:1", "b:1"}, RepoDigests: []string{"a@" + d, "a@" + e}},
			true,
			[]imageName{{"a", "1", d}, {"a", "1", e}, {"b", "1", none}},
		},
		"pulled by digest": {image.Summary{RepoDigests: []string{"a@" + d}}, false, []imageName{{"a", none, d}}},
	} {
		if got := imageNames(test.image, test.digests); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestFilterQuery(t *testing.T) {
	query, err := filterQuery([]string{"label=a=b", "LABEL=c", "dangling=true"})
	if want := `{"dangling":{"true":true},"label":{"a=b":true,"c":true}}`; err != nil || query.Get("filters") != want {
		t.Errorf("%v %v, want %s", query, err, want)
	}
	if query, err := filterQuery(nil); err != nil || len(query) > 0 {
		t.Errorf("no filters: %v %v", query, err)
	}
	for _, filter := range []string{"x", "=x"} {
		if _, err := filterQuery([]string{filter}); err == nil {
			t.Errorf("%q is no filter", filter)
		}
	}
}

func TestPlatformJSON(t *testing.T) {
	for platform, want := range map[string]string{
		"": "", "linux": `{"os":"linux"}`, "linux/arm/v7": `{"architecture":"arm","os":"linux","variant":"v7"}`,
	} {
		if got, err := platformJSON(platform); err != nil || got != want {
			t.Errorf("%q: %q %v, want %q", platform, got, err, want)
		}
	}
	if _, err := platformJSON("a/b/c/d"); err == nil {
		t.Error("a/b/c/d is no platform")
	}
}
