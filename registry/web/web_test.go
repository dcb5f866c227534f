package web_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"davit/oci"
	"davit/registry/server"
	"davit/registry/storage"
)

// shop pushes an image in two versions: the second has another configuration and other files.
func (f *fixture) shop(repo string) (one, two oci.Descriptor) {
	f.t.Helper()
	base := layer(f.t, "bin/", "bin/sh=#!shell", "etc/motd=hello", "etc/old=gone soon")
	created := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	history := []oci.History{
		{Created: &created, CreatedBy: `/bin/sh -c #(nop) ADD file:abc in / `},
		{Created: &created, CreatedBy: `/bin/sh -c #(nop)  CMD ["sh"]`, EmptyLayer: true},
		{Created: &created, CreatedBy: `RUN /bin/sh -c make install # buildkit`},
	}
	image := oci.Image{History: history, Config: oci.Config{Env: []string{"PATH=/bin", "V=1"}, Cmd: []string{"sh", "-c", "echo hi"}, Labels: map[string]string{"team": "blue"}}}
	one = f.pushImage(repo, "v1", image, base, layer(f.t, "srv/app=version 1"))
	image.Config.Env = []string{"PATH=/bin", "V=2"}
	image.Config.Labels = map[string]string{"team": "green"}
	two = f.pushImage(repo, "v2", image, base, layer(f.t, "srv/app=version 2!", "etc/.wh.old=", "srv/link⇒app"))
	return one, two
}

func TestRepositories(t *testing.T) {
	f := start(t, server.Options{})
	f.get(200, "/").wants("Nothing here yet", "davit push")
	f.shop("team/shop")
	f.pushImage("solo", "latest", oci.Image{})
	page := f.get(200, "/")
	page.wants("2 repositories", "team/ shop", "2 tags", "solo", "1 tag")
	if to := page.link("team/ shop 2 tags"); to != "/r/team/shop" {
		t.Errorf("the link leads to %s", to)
	}
	page = f.get(200, "/?q=SHOP")
	page.wants("1 match in 2 repositories")
	if strings.Contains(page.text("main"), "solo") {
		t.Error("the filter lets others through")
	}
	f.get(200, "/?q=%3Cnothing%3E").wants("No repository has “<nothing>” in its name")
}

func TestTags(t *testing.T) {
	f := start(t, server.Options{Immutable: []string{"v1"}})
	f.shop("shop")
	f.push("shop", "multi", oci.MediaTypeIndex, oci.Index{SchemaVersion: 2, MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{}})
	page := f.get(200, "/r/shop")
	page.wantColumn("multi", "v2", "v1 immutable") // the newest first
	page.wants("3 tags", "image", "0 platforms", "just now")
	f.get(200, "/r/shop?sort=name").wantColumn("v2", "v1 immutable", "multi")
	f.get(200, "/r/shop?q=V").wantColumn("v2", "v1 immutable")
	f.request(202, "DELETE", "/v2/shop/manifests/v2", nil, "")
	page = f.get(200, "/r/shop")
	page.wantColumn("multi", "v1 immutable")
	f.get(200, page.link("Deleted 1")).wantColumn("v2")
	f.get(404, "/r/none").wants("There is no repository none.")
}

func TestManyTagsInPages(t *testing.T) {
	f := start(t, server.Options{})
	d := f.pushImage("big", "first", oci.Image{})
	for i := range 250 {
		f.retag("big", fmt.Sprintf("v1.%d", i), d.Digest)
	}
	page := f.get(200, "/r/big?sort=name")
	if rows := page.column(); len(rows) != 100 || rows[0] != "v1.249" || rows[99] != "v1.150" {
		t.Fatalf("the first page has %d rows: %s to %s", len(rows), rows[0], rows[len(rows)-1])
	}
	page.wants("251 tags · 1–100", "Page 1 of 3")
	page = f.get(200, "/r/big"+page.link("Next →"))
	page = f.get(200, "/r/big"+page.link("Next →"))
	page.wants("201–251", "Page 3 of 3")
	if rows := page.column(); len(rows) != 51 || rows[50] != "first" {
		t.Fatalf("the last page has %q", rows)
	}
	f.get(200, "/r/big?q=1.24&sort=name&page=99").wantColumn("v1.249", "v1.248", "v1.247", "v1.246", "v1.245", "v1.244", "v1.243", "v1.242", "v1.241", "v1.240", "v1.24")
}

// retag lets a tag name a manifest as the registry's own records do: pushing would be the slow part.
func (f *fixture) retag(repo, tag string, d oci.Digest) {
	f.t.Helper()
	if err := f.store.PutRecord(f.t.Context(), "repo/"+repo+"/_tags/"+tag, []byte(d)); err != nil {
		f.t.Fatal(err)
	}
}

func TestImage(t *testing.T) {
	f := start(t, server.Options{})
	one, _ := f.shop("team/shop")
	page := f.get(200, "/r/team/shop/-/tag/v1")
	host := strings.TrimPrefix(f.url, "http://")
	page.wants("davit pull "+host+"/team/shop:v1", "docker pull "+host+"/team/shop:v1", string(one.Digest),
		"2 layers", "ADD file:abc in /", `CMD ["sh"]`, "RUN make install", "linux/amd64",
		"sh -c 'echo hi'", "Environment", "V 1", "Labels", "team blue", "Nothing refers to this", "@{0}", "current", "127.0.0.1")
	if strings.Contains(page.text("main"), "nop") || strings.Contains(page.text("main"), "buildkit") {
		t.Error("commands are not shown as the Dockerfile had them")
	}
	f.get(200, "/r/team/shop/-/manifest/"+string(one.Digest)).wants("2 layers", "docker pull "+host+"/team/shop@"+string(one.Digest))
	f.get(404, "/r/team/shop/-/tag/none").wants("There is no tag none in team/shop.")
	f.get(404, "/r/team/shop/-/manifest/"+string(oci.DigestOf(nil)))
	f.get(400, "/r/team/shop/-/manifest/sha256:12")
}

func TestIndexReferrersAndArtifacts(t *testing.T) {
	f := start(t, server.Options{})
	arm := f.pushImage("app", "", oci.Image{OS: "linux", Architecture: "arm64"}, layer(t, "a=arm"))
	amd := f.pushImage("app", "", oci.Image{OS: "linux", Architecture: "amd64"}, layer(t, "a=amd"))
	arm.Platform, amd.Platform = &oci.Platform{OS: "linux", Architecture: "arm64"}, &oci.Platform{OS: "linux", Architecture: "amd64"}
	absent := oci.Descriptor{MediaType: oci.MediaTypeManifest, Digest: oci.DigestOf([]byte("absent")), Size: 3, Platform: &oci.Platform{OS: "linux", Architecture: "s390x"}}
	index := f.push("app", "all", oci.MediaTypeIndex, oci.Index{SchemaVersion: 2, MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{arm, amd, absent}})
	page := f.get(200, "/r/app/-/tag/all")
	page.wantColumn("linux/arm64", "linux/amd64", "linux/s390x")
	page.wants("not in this repository")
	f.get(200, page.link("linux/arm64")).wants("linux/arm64", "1 layer")

	empty := f.pushBlob("app", []byte("{}"), oci.MediaTypeEmpty)
	bill := f.pushBlob("app", []byte("SPDX"), "text/spdx")
	bill.Annotations = map[string]string{"org.opencontainers.image.title": "bill.spdx"}
	artifact := f.push("app", "", oci.MediaTypeManifest, oci.Manifest{
		SchemaVersion: 2, MediaType: oci.MediaTypeManifest, ArtifactType: "application/vnd.example.sbom",
		Config: empty, Layers: []oci.Descriptor{bill}, Subject: &index, Annotations: map[string]string{"by": "the builder"},
	})
	page = f.get(200, "/r/app/-/tag/all")
	page = f.get(200, page.link("application/vnd.example.sbom"))
	page.wants("bill.spdx", "by the builder", "application/vnd.example.sbom")
	if to := page.link("Download"); to != "/v2/app/blobs/"+string(bill.Digest) {
		t.Errorf("the download is %s", to)
	}
	if to := page.link(index.Digest.Short()); to != "/r/app/-/manifest/"+string(index.Digest) {
		t.Errorf("the subject is %s", to)
	}
	f.get(404, "/r/app/-/files/"+string(artifact.Digest)).wants("is not an image")
}

func TestFiles(t *testing.T) {
	f := start(t, server.Options{})
	_, two := f.shop("shop")
	page := f.get(200, f.get(200, "/r/shop/-/tag/v2").link("Browse files"))
	page.wantColumn("bin/", "etc/", "srv/")
	page.wants("4 files")
	page = f.get(200, page.link("etc/"))
	page.wantColumn("motd") // "old" has a whiteout
	f.get(200, page.link("/")).wantColumn("bin/", "etc/", "srv/")
	f.get(200, "/r/shop/-/files/"+string(two.Digest)+"?path=srv").wantColumn("app", "link → app")
	f.get(404, "/r/shop/-/files/"+string(two.Digest)+"?path=etc/motd")
	f.get(404, "/r/shop/-/files/"+string(two.Digest)+"?path=../../etc/passwd").wants("no directory")
	broken := f.pushImage("shop", "broken", oci.Image{}, []byte("this is no archive but it is pushed as one, is it not"))
	f.get(400, "/r/shop/-/files/"+string(broken.Digest)).wants("read layer")
}

// A list of files that is in memory says nothing about who may see it.
func TestFilesOfLayersThatAreElsewhere(t *testing.T) {
	f := start(t, server.Options{})
	secret := layer(t, "etc/secret-plan=x")
	image := f.pushImage("private", "v1", oci.Image{}, secret)
	f.get(200, "/r/private/-/files/"+string(image.Digest)+"?path=etc").wantColumn("secret-plan")
	config := f.pushBlob("public", []byte(`{"os":"linux","architecture":"amd64"}`), oci.MediaTypeConfig)
	thief := f.push("public", "v1", oci.MediaTypeManifest, oci.Manifest{SchemaVersion: 2, MediaType: oci.MediaTypeManifest, Config: config, Layers: []oci.Descriptor{
		{MediaType: oci.MediaTypeDockerForeign, Digest: oci.DigestOf(secret), Size: int64(len(secret)), URLs: []string{"http://127.0.0.1/"}},
	}})
	page := f.get(404, "/r/public/-/files/"+string(thief.Digest))
	if strings.Contains(page.body, "secret-plan") {
		t.Error("another repository's files are shown")
	}
}

func TestDiff(t *testing.T) {
	f := start(t, server.Options{})
	f.shop("shop")
	f.get(200, "/r/shop/-/diff").wants("Compare images of shop")
	page := f.get(200, "/r/shop/-/diff?from=v1&to=v2")
	page.wantColumn("Environment V", "Labels team", "− removed: /etc/old", "± changed: /srv/app", "+ added: /srv/link")
	page.wants("the lowest 1 layer", "1 file added", "1 file removed", "1 file changed", "blue green", "9B", "+1B", "−9B", "link to app")
	f.get(200, "/r/shop/-/diff?from=v1&to=v1").wants("Both are the same image", "No file differs")
	f.get(404, "/r/shop/-/diff?from=v1&to=none").wants("There is no tag none in shop.")
	f.get(404, "/r/shop/-/diff?from=v1&to=v2&page=7")
}

func TestDiffOfPlatforms(t *testing.T) {
	f := start(t, server.Options{})
	for i, tag := range []string{"a", "b"} {
		index := oci.Index{SchemaVersion: 2, MediaType: oci.MediaTypeIndex}
		for _, architecture := range []string{"arm64", "amd64"} {
			d := f.pushImage("app", "", oci.Image{OS: "linux", Architecture: architecture}, layer(t, fmt.Sprintf("%s=%d", architecture, i)))
			d.Platform = &oci.Platform{OS: "linux", Architecture: architecture}
			index.Manifests = append(index.Manifests, d)
		}
		f.push("app", tag, oci.MediaTypeIndex, index)
	}
	f.get(200, "/r/app/-/diff?from=a&to=b").wantColumn("± changed: /amd64")
	f.get(200, "/r/app/-/diff?from=a&to=b&platform=linux%2Farm64").wantColumn("± changed: /arm64")
	f.get(404, "/r/app/-/diff?from=a&to=b&platform=plan9/arm")
}

func TestRollbackByForm(t *testing.T) {
	f := start(t, server.Options{})
	one, _ := f.shop("shop")
	two := f.pushImage("shop", "v1", oci.Image{}, layer(t, "new=1"))
	page := f.get(200, "/r/shop/-/tag/v1")
	forms := page.all("form")
	if len(forms) != 1 {
		t.Fatalf("%d forms, want one: for the only former digest", len(forms))
	}
	form := url.Values{}
	for _, input := range page.all("input") {
		form.Set(attribute(input, "name"), attribute(input, "value"))
	}
	if form.Get("digest") != string(one.Digest) {
		t.Fatalf("the form is %v", form)
	}
	back := f.post(attribute(forms[0], "action"), form)
	if back.status != 303 {
		t.Fatalf("status %d: %s", back.status, back.text("main"))
	}
	f.get(200, back.header.Get("Location")).wants("Done: v1 names "+one.Digest.Short()+" again", "2 layers")
	f.get(200, f.get(200, "/r/shop/-/tag/v1").link("Compare")).wants("/new")
	for _, bad := range []url.Values{
		{"tag": {"v1"}, "digest": {"sha256:no"}},
		{"tag": {"../v1"}, "digest": {string(two.Digest)}},
		{},
	} {
		if a := f.post("/r/shop/-/rollback", bad); a.status != 400 {
			t.Errorf("%v: status %d", bad, a.status)
		}
	}
	if a := f.post("/r/shop/-/rollback", url.Values{"tag": {"v1"}, "digest": {string(oci.DigestOf(nil))}}); a.status != 404 {
		t.Errorf("a digest that the tag never named: %d", a.status)
	}
	f.get(405, "/r/shop/-/rollback")
}

func TestDeletedTagIsRestored(t *testing.T) {
	f := start(t, server.Options{})
	one, _ := f.shop("shop")
	f.request(202, "DELETE", "/v2/shop/manifests/v1", nil, "")
	f.get(200, "/r/shop/-/tag/v1").wants("This tag is deleted", "Restore")
	if a := f.post("/r/shop/-/rollback", url.Values{"tag": {"v1"}, "digest": {string(one.Digest)}}); a.status != 303 {
		t.Fatalf("status %d: %s", a.status, a.text("main"))
	}
	f.get(200, "/r/shop/-/tag/v1").wants("current")
}

func TestImmutableTagHasNoRollback(t *testing.T) {
	f := start(t, server.Options{Immutable: []string{"v1"}})
	one, _ := f.shop("shop")
	page := f.get(200, "/r/shop/-/tag/v1")
	page.wants("immutable")
	if len(page.all("form")) != 0 {
		t.Error("there is a form")
	}
	if a := f.post("/r/shop/-/rollback", url.Values{"tag": {"v1"}, "digest": {string(one.Digest)}}); a.status != 303 {
		t.Errorf("to what it names already: %d", a.status)
	}
}

func TestNoPages(t *testing.T) {
	f := start(t, server.Options{NoPages: true})
	if a := f.get(404, "/"); !strings.Contains(a.header.Get("Content-Type"), "json") {
		t.Errorf("Content-Type %s", a.header.Get("Content-Type"))
	}
}

// slowStore lets nobody open a blob until it is told to.
type slowStore struct {
	storage.Store
	slow oci.Digest
	goOn chan struct{}
}

func (s *slowStore) OpenBlob(ctx context.Context, d oci.Digest) (storage.Blob, error) {
	if d == s.slow {
		select {
		case <-s.goOn:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.Store.OpenBlob(ctx, d)
}

// A visitor does not wait long for a large layer: the page says how far it is and asks again, and in the end
// the files are there though nobody waited for them.
func TestFilesOfSlowLayers(t *testing.T) {
	content := layer(t, "deep/inside=x")
	slow := &slowStore{slow: oci.DigestOf(content), goOn: make(chan struct{})}
	f := startOn(t, server.Options{}, func(s storage.Store) storage.Store { slow.Store = s; return slow })
	d := f.pushImage("big", "v1", oci.Image{}, layer(t, "quick=x"), content)
	files := "/r/big/-/files/" + string(d.Digest)
	page := f.get(202, files)
	page.wants("Reading layers", "1 of 2 are done")
	if page.header.Get("Refresh") == "" {
		t.Error("the page does not ask again")
	}
	close(slow.goOn)
	f.get(200, files).wantColumn("deep/", "quick")
}
