package build_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"davit/build"
	"davit/oci"
	"davit/oci/errdefs"
)

// The Dockerfile that davit was made for.
const vertx = `FROM subicura/vertx3:3.3.1

MAINTAINER chungsub.kim@purpleworks.co.kr

ADD build/distributions/app-3.3.1.tar /

ADD config.template.json /app-3.3.1/bin/config.json

ADD docker/script/start.sh /usr/local/bin/

RUN ln -s /usr/local/bin/start.sh /start.sh

EXPOSE 8080

EXPOSE 7000

CMD ["start.sh"]
`

func vertxContext(t *testing.T) map[string]string {
	return map[string]string{
		"build/distributions/app-3.3.1.tar": string(tarOf(t, map[string]string{"app-3.3.1/": "", "app-3.3.1/bin/": "", "app-3.3.1/bin/app": "program"})),
		"config.template.json":              `{"port": 8080}`,
		"docker/script/start.sh":            "#!/bin/sh\necho started\n",
	}
}

func TestBuildTheExampleAsWritten(t *testing.T) {
	h := newHost(t)
	h.addBase("subicura/vertx3:3.3.1", busybox(t))
	r := h.mustBuild(vertx, vertxContext(t), func(r *build.Request) { r.Tags = []string{"app", "app:v1"} })

	if got := h.sh(r.Image, "cat /app-3.3.1/bin/app /app-3.3.1/bin/config.json; readlink /start.sh; cat /start.sh"); got != "program{\"port\": 8080}/usr/local/bin/start.sh\n#!/bin/sh\necho started" {
		t.Errorf("files:\n%s", got)
	}
	c := r.Image.Config
	if jsonOf(c.ExposedPorts) != `{"7000/tcp":{},"8080/tcp":{}}` || jsonOf(c.Cmd) != `["start.sh"]` || r.Image.Author != "chungsub.kim@purpleworks.co.kr" {
		t.Errorf("configuration %s, author %q", jsonOf(c), r.Image.Author)
	}
	var history []string
	for _, entry := range r.Image.History {
		if entry.Comment != "buildkit.dockerfile.v0" {
			t.Errorf("comment %q", entry.Comment)
		}
		history = append(history, entry.CreatedBy)
	}
	want := []string{
		"MAINTAINER chungsub.kim@purpleworks.co.kr",
		"ADD build/distributions/app-3.3.1.tar / # buildkit",
		"ADD config.template.json /app-3.3.1/bin/config.json # buildkit",
		"ADD docker/script/start.sh /usr/local/bin/ # buildkit",
		"RUN /bin/sh -c ln -s /usr/local/bin/start.sh /start.sh # buildkit",
		"EXPOSE [8080/tcp]", "EXPOSE [7000/tcp]", `CMD ["start.sh"]`,
	}
	if !slices.Equal(history, want) {
		t.Errorf("history %q", history)
	}
	if h.images.names["docker.io/library/app:latest"] != r.ID || h.images.names["docker.io/library/app:v1"] != r.ID {
		t.Errorf("names %v", h.images.names)
	}
	text := strings.Join(h.lines, "")
	for _, want := range []string{
		"Step 1/9 : FROM subicura/vertx3:3.3.1\n ---> ", "Step 6/9 : RUN ln -s /usr/local/bin/start.sh /start.sh\n ---> Running in ",
		"Successfully built " + r.ID.Short() + "\nSuccessfully tagged app:latest\nSuccessfully tagged app:v1\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestRebuildRunsAndWritesNothing(t *testing.T) {
	h := newHost(t)
	h.addBase("subicura/vertx3:3.3.1", busybox(t))
	first := h.mustBuild(vertx, vertxContext(t))
	runs, puts := len(h.runner.runs), h.images.puts
	second := h.mustBuild(vertx, vertxContext(t))
	if second.ID != first.ID || len(h.runner.runs) != runs || h.images.puts != puts {
		t.Errorf("IDs %s and %s, %d runs and %d images more", first.ID, second.ID, len(h.runner.runs)-runs, h.images.puts-puts)
	}
	if got := len(h.cached()); got != 8 {
		t.Errorf("%d of 8 steps from the cache: %q", got, h.cached())
	}
	if !strings.Contains(strings.Join(h.lines, ""), " ---> Using cache\n") {
		t.Error("the text does not say so")
	}
}

func TestCacheGoesByContent(t *testing.T) {
	h := newHost(t)
	dockerfile := "FROM base\nLABEL v=1\nCOPY a /a\nRUN cat /a > /b\nCOPY c /c\n"
	h.mustBuild(dockerfile, map[string]string{"a": "1", "c": "1"})
	t.Run("other label", func(t *testing.T) {
		h.mustBuild(strings.Replace(dockerfile, "v=1", "v=2", 1), map[string]string{"a": "1", "c": "1"})
		if got := h.cached(); !slices.Equal(got, []string{"COPY a /a", "COPY c /c", "RUN cat /a > /b"}) {
			t.Errorf("cached %q", got)
		}
	})
	t.Run("changed file", func(t *testing.T) {
		r := h.mustBuild(dockerfile, map[string]string{"a": "2", "c": "1"})
		if got := h.cached(); !slices.Equal(got, []string{"LABEL v=1"}) {
			t.Errorf("cached %q", got)
		}
		if got := h.sh(r.Image, "cat /b"); got != "2" {
			t.Errorf("/b is %q", got)
		}
	})
	t.Run("unrelated file", func(t *testing.T) {
		h.mustBuild(dockerfile, map[string]string{"a": "1", "c": "1", "d": "new"})
		if got := h.cached(); len(got) != 4 {
			t.Errorf("cached %q", got)
		}
	})
	t.Run("no cache", func(t *testing.T) {
		h.mustBuild(dockerfile, map[string]string{"a": "1", "c": "1"}, func(r *build.Request) { r.NoCache = true })
		if got := h.cached(); len(got) != 0 {
			t.Errorf("cached %q", got)
		}
	})
}

func TestCacheKeepsItsLayers(t *testing.T) {
	h := newHost(t)
	first := h.mustBuild("FROM base\nRUN echo 1 > /x\n", nil)
	if got := h.Cache.Layers(); !slices.Equal(got, first.Image.RootFS.DiffIDs[1:]) {
		t.Errorf("the collector would not keep %s but %s", first.Image.RootFS.DiffIDs[1:], got)
	}
}

func TestLayerThatIsGoneIsMadeAgain(t *testing.T) {
	h := newHost(t)
	first := h.mustBuild("FROM base\nRUN echo 1 > /x\n", nil)
	base := first.Image.RootFS.DiffIDs[:1]
	if _, err := h.layers.Sweep(t.Context(), [][]oci.DiffID{base}); err != nil {
		t.Fatal(err)
	}
	second := h.mustBuild("FROM base\nRUN echo 1 > /x\n", nil)
	if got := h.sh(second.Image, "cat /x"); got != "1" || len(h.cached()) != 0 {
		t.Errorf("/x is %q, cached %q", got, h.cached())
	}
}

func TestDirectoryContextRebuild(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("Dockerfile", "FROM base\nCOPY f /f\n")
	at := time.Unix(1600000000, 0)
	for i, content := range []string{"one", "one", "two"} {
		write("f", content)
		// The same size and modification time must not hide other content.
		if err := os.Chtimes(filepath.Join(dir, "f"), at, at); err != nil {
			t.Fatal(err)
		}
		r, err := h.buildContext(openDir(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		if got := h.sh(r.Image, "cat /f"); got != content {
			t.Errorf("build %d has %q, want %q", i, got, content)
		}
	}
}

func TestRunStep(t *testing.T) {
	h := newHost(t)
	r := h.mustBuild(`FROM base
ARG GREETING=hello
ENV WHO=world
WORKDIR /work/dir
RUN echo $GREETING $WHO $(pwd) > out
USER app
RUN id -u > /tmp/id; id -G >> /tmp/id; echo $HOME >> /tmp/id
USER 0
RUN ["/bin/sh", "-c", "echo exec > /exec"]
SHELL ["/bin/sh", "-ec"]
RUN <<DOC
echo one > /doc
echo two >> /doc
DOC
RUN <<DOC
#!/bin/cat
plain text
DOC
RUN cat <<A > /both && cat <<B >> /both
first
A
second
B
RUN rm -r /usr/lib && chmod 755 /secret
`, nil)
	got := h.sh(r.Image, "cat /work/dir/out /tmp/id /exec /doc /both; ls -A /usr; stat -c %a /secret")
	if got != "hello world /work/dir\n1001\n1002 1500\n/home/app\nexec\none\ntwo\nfirst\nsecond\n755" {
		t.Errorf("got %q", got)
	}
	if got := strings.Join(h.lines, ""); !strings.Contains(got, "plain text") {
		t.Errorf("the script's output is missing in\n%s", got)
	}
}

func TestRunLeavesNoMountPoints(t *testing.T) {
	h := newHost(t)
	r := h.mustBuild("FROM base\nRUN --mount=type=cache,target=/var/cache/x --mount=type=tmpfs,target=/scratch touch /var/cache/x/f /scratch/g\nRUN true\n", nil)
	if got := h.sh(r.Image, "find /var /scratch 2>/dev/null | wc -l"); got != "0" {
		t.Errorf("%s paths are left", got)
	}
	// Neither step changed anything, so there is no layer for them.
	if n := len(r.Image.RootFS.DiffIDs); n != 1 {
		t.Errorf("%d layers, want the base's alone", n)
	}
	if !r.Image.History[0].EmptyLayer || !r.Image.History[1].EmptyLayer {
		t.Errorf("history %s", jsonOf(r.Image.History))
	}
}

func TestRunMounts(t *testing.T) {
	h := newHost(t)
	secrets := secretMap{"token": "s3cret"}
	r := h.mustBuild(`FROM base AS maker
RUN mkdir /out && echo made > /out/file
FROM base
RUN --mount=from=maker,source=/out,target=/in --mount=target=/ctx cat /in/file /ctx/sub/f > /result
RUN --mount=type=cache,target=/cache,id=c echo x >> /cache/log
RUN --mount=type=cache,target=/cache,id=c echo y >> /cache/log && cat /cache/log >> /result
RUN --mount=type=secret,id=token,mode=0440 cat /run/secrets/token >> /result && stat -c %a /run/secrets/token >> /result
RUN --mount=type=secret,id=token,env=TOKEN echo $TOKEN >> /result
RUN --mount=type=bind,rw,target=/ctx echo changed > /ctx/sub/f && cat /ctx/sub/f >> /result
RUN --mount=type=bind,target=/ctx ! touch /ctx/new 2>/dev/null
`, map[string]string{"sub/f": "context\n"}, func(r *build.Request) { r.Secrets = secrets })
	if got := h.sh(r.Image, "cat /result; ls /run 2>/dev/null || true"); got != "made\ncontext\nx\ny\ns3cret440\ns3cret\nchanged" {
		t.Errorf("got %q", got)
	}
	if left, err := os.ReadDir(filepath.Join(h.root, "run")); err != nil || len(left) > 0 {
		t.Errorf("secrets left behind: %v, %v", left, err)
	}
	if left, err := os.ReadDir(filepath.Join(h.root, "build", "tmp")); err != nil || len(left) > 0 {
		t.Errorf("temporary files left behind: %v, %v", left, err)
	}
	if left := h.snaps.List(); len(left) > 0 {
		t.Errorf("snapshots left behind: %v", left)
	}
}

func TestStages(t *testing.T) {
	h := newHost(t)
	dockerfile := `ARG BASE=base
FROM ${BASE} AS one
RUN echo one > /one
FROM base AS unused
RUN false
FROM one AS two
ENV SET=two
COPY --from=one --chown=app:root /one /copied
FROM scratch AS last
COPY --from=two / /
COPY --from=1 /missing /
FROM two
RUN echo $SET >> /copied
`
	r := h.mustBuild(dockerfile, nil)
	if got := h.sh(r.Image, "cat /copied; stat -c %U:%G /copied"); got != "one\ntwo\napp:root" {
		t.Errorf("got %q", got)
	}
	if text := strings.Join(h.lines, ""); strings.Contains(text, "RUN false") || !strings.Contains(text, "Step 1/8 : ARG BASE=base\nStep 2/8 : FROM ${BASE} AS one\n") {
		t.Errorf("text\n%s", text)
	}
	_, err := h.build(dockerfile, nil, func(r *build.Request) { r.Target = "last" })
	if err == nil || !strings.Contains(err.Error(), "The command '/bin/sh -c false' returned a non-zero code: 1") {
		t.Errorf("error %v", err)
	}
}

func TestOnbuild(t *testing.T) {
	h := newHost(t)
	base := h.mustBuild("FROM base\nONBUILD COPY f /f\nONBUILD RUN cat /f > /g\nRUN echo base > /base\n", nil)
	h.setImage("onbuild", base.Image)
	r := h.mustBuild("FROM onbuild\nRUN cat /g > /h\n", map[string]string{"f": "trigger"})
	if got := h.sh(r.Image, "cat /h /base"); got != "triggerbase" {
		t.Errorf("got %q", got)
	}
	if len(r.Image.Config.OnBuild) != 0 {
		t.Errorf("triggers are inherited: %q", r.Image.Config.OnBuild)
	}
	if got := strings.Count(strings.Join(h.lines, ""), "# Executing build trigger"); got != 2 {
		t.Errorf("%d triggers in\n%s", got, strings.Join(h.lines, ""))
	}
}

func TestErrors(t *testing.T) {
	h := newHost(t)
	for _, test := range []struct{ name, dockerfile, want string }{
		{"unknown instruction", "FROM base\n\nFRM x\n", "dockerfile parse error on line 3: unknown instruction: FRM"},
		{"missing file", "FROM base\nCOPY x /\n", "Dockerfile:2: COPY failed: file not found in build context or excluded by .dockerignore: stat x: file does not exist"},
		{"parent of context", "FROM base\nCOPY ../../etc/shadow /\n", "Dockerfile:2: COPY failed: file not found in build context or excluded by .dockerignore: stat ../../etc/shadow: file does not exist"},
		{"ignored file", "FROM base\nCOPY ignored /\n", "stat ignored: file does not exist"},
		{"failed command", "FROM base\nRUN true\nRUN exit 3\n", "Dockerfile:3: The command '/bin/sh -c exit 3' returned a non-zero code: 3"},
		{"unknown base", "FROM nothing\n", "Dockerfile:1: pull access denied for nothing, repository does not exist"},
		{"unknown image of a copy", "FROM base\nCOPY --from=none:1 /a /b\n", "Dockerfile:2: invalid from flag value none:1: pull access denied for none:1"},
		{"unknown user", "FROM base\nCOPY --chown=nobody f /\n", "can't find uid for user nobody: no such user: nobody"},
		{"several files", "FROM base\nCOPY f g /x\n", "dockerfile parse error on line 2: When using COPY with more than one source file, the destination must be a directory and end with a /"},
		{"directory over file", "FROM base\nCOPY f /x/usr\nCOPY d /x/\n", "cannot copy to non-directory: /x/usr"},
		{"no instruction", "# nothing\n", "file with no instructions"},
		{"copy before from", "COPY a b\n", "dockerfile parse error on line 1: no build stage in current context"},
		{"stage with itself", "FROM base AS a\nCOPY --from=a / /\n", "circular dependency"},
		{"whiteout name", "FROM base\nCOPY .wh.f /\n", "mark deletions in image layers"},
		{"no target", "FROM base\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := map[string]string{"f": "", "g": "", "d/usr/lib": "", ".wh.f": "", "ignored": "", ".dockerignore": "ignored\n"}
			_, err := h.build(test.dockerfile, files, func(r *build.Request) {
				if test.want == "" {
					r.Target = "x"
				}
			})
			if test.want == "" {
				test.want = `target stage "x" could not be found`
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if left := h.snaps.List(); len(left) > 0 {
				t.Errorf("snapshots left behind: %v", left)
			}
		})
	}
}

func TestFailedStepHasItsCode(t *testing.T) {
	h := newHost(t)
	_, err := h.build("FROM base\nRUN exit 42\n", nil)
	var failed *build.StepError
	if !errors.As(err, &failed) || failed.Code != 42 || failed.Line != 2 || failed.File != "Dockerfile" {
		t.Errorf("error %#v", err)
	}
}

func TestArguments(t *testing.T) {
	h := newHost(t)
	dockerfile := "FROM base\nARG A\nARG B=b\nRUN echo $A $B $HTTP_PROXY > /x\n"
	with := func(args map[string]string) func(*build.Request) {
		return func(r *build.Request) { r.Args = args }
	}
	r := h.mustBuild(dockerfile, nil, with(map[string]string{"A": "1", "HTTP_PROXY": "p"}))
	if got := h.sh(r.Image, "cat /x"); got != "1 b p" {
		t.Errorf("got %q", got)
	}
	if got := r.Image.History[2].CreatedBy; got != "RUN |2 A=1 B=b /bin/sh -c echo $A $B $HTTP_PROXY > /x # buildkit" {
		t.Errorf("history %q", got)
	}
	h.mustBuild(dockerfile, nil, with(map[string]string{"A": "1", "HTTP_PROXY": "other"}))
	if got := h.cached(); len(got) != 3 {
		t.Errorf("another proxy is no hit: %q", got)
	}
	h.mustBuild(dockerfile, nil, with(map[string]string{"A": "2", "UNKNOWN": "x"}))
	if got := h.cached(); slices.Contains(got, "RUN echo $A $B $HTTP_PROXY > /x") {
		t.Errorf("another argument is a hit: %q", got)
	}
	if got := strings.Join(h.lines, ""); !strings.Contains(got, "[Warning] One or more build-args [UNKNOWN] were not consumed\n") {
		t.Errorf("no warning in\n%s", got)
	}
}

func TestRequestOptions(t *testing.T) {
	h := newHost(t)
	r := h.mustBuild("FROM base\nLABEL a=1 b=2\n", nil, func(r *build.Request) { r.Labels = map[string]string{"b": "3"} })
	if got := jsonOf(r.Image.Config.Labels); got != `{"a":"1","b":"3"}` {
		t.Errorf("labels %s", got)
	}
	if got := strings.Join(h.lines, ""); !strings.Contains(got, "Step 3/3 : LABEL b=3\n") {
		t.Errorf("no step for the labels of the request in\n%s", got)
	}
	same := h.mustBuild("FROM base\n", nil)
	if same.ID != h.images.names["base"] {
		t.Errorf("an image without steps is not its base")
	}
	if _, err := h.build("", nil, func(r *build.Request) { r.DockerfileData = []byte("FROM base\nRUN echo 1 > /1\n") }); err != nil {
		t.Error(err)
	}
	if _, err := h.build("FROM base\n", nil, func(r *build.Request) { r.Dockerfile = "no" }); err == nil || err.Error() != "Cannot locate specified Dockerfile: no" {
		t.Errorf("error %v", err)
	}
	if _, err := h.build("FROM base\n", nil, func(r *build.Request) { r.Tags = []string{"Upper"} }); err == nil {
		t.Error("a bad name is accepted")
	}
	h.mustBuild("FROM base\nRUN echo 2 > /2\n", nil, func(r *build.Request) {
		r.Network, r.ExtraHosts, r.Limits = "host", []string{"a:1.2.3.4"}, build.Limits{Memory: 1 << 20, ShmSize: 7}
	})
	spec := h.runner.runs[len(h.runner.runs)-1]
	if spec.Network != "host" || spec.ExtraHosts[0] != "a:1.2.3.4" || spec.Limits.Memory != 1<<20 || spec.Limits.ShmSize != 7 {
		t.Errorf("specification %s", jsonOf(spec))
	}
}

func TestEntitlements(t *testing.T) {
	h := newHost(t)
	for _, test := range []struct{ flag, entitlement string }{
		{"--security=insecure", build.EntitlementInsecure},
		{"--network=host", build.EntitlementNetworkHost},
	} {
		dockerfile := "FROM base\nRUN " + test.flag + " echo x > /x\n"
		_, err := h.build(dockerfile, nil)
		if !errors.Is(err, errdefs.ErrForbidden) || !strings.Contains(err.Error(), test.entitlement) {
			t.Errorf("%s: error %v", test.flag, err)
		}
		h.mustBuild(dockerfile, nil, func(r *build.Request) { r.Entitlements = []string{test.entitlement} })
		spec := h.runner.runs[len(h.runner.runs)-1]
		if spec.Insecure != (test.flag == "--security=insecure") || (spec.Network == "host") != (test.flag == "--network=host") {
			t.Errorf("%s: specification %s", test.flag, jsonOf(spec))
		}
	}
}

func TestCacheMountsAreListedAndRemoved(t *testing.T) {
	h := newHost(t)
	dockerfile := "FROM base\nRUN --mount=type=cache,target=/c,mode=0700,uid=5 echo 12345 > /c/f\n"
	h.mustBuild(dockerfile, nil)
	mounts, err := h.CacheMounts(t.Context())
	if err != nil || len(mounts) != 1 || mounts[0].Bytes < 6 || mounts[0].ID != "/c" {
		t.Fatalf("cache mounts %+v, %v", mounts, err)
	}
	if err := h.RemoveCacheMount(t.Context(), mounts[0].Name); err != nil {
		t.Fatal(err)
	}
	if mounts, err = h.CacheMounts(t.Context()); err != nil || len(mounts) != 0 {
		t.Errorf("cache mounts %+v, %v", mounts, err)
	}
	if err := h.RemoveCacheMount(t.Context(), "../tmp"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("error %v", err)
	}
}

func TestSourceDateEpoch(t *testing.T) {
	h := newHost(t)
	r := h.mustBuild("FROM base\nLABEL a=1\n", nil, func(r *build.Request) {
		r.Args = map[string]string{"SOURCE_DATE_EPOCH": "1000"}
	})
	if !r.Image.Created.Equal(time.Unix(1000, 0)) {
		t.Errorf("created %v", r.Image.Created)
	}
}

func TestStagesRunAtTheSameTime(t *testing.T) {
	h := newHost(t)
	// Each stage waits for the other's file in a cache mount; one after the other they would fail.
	wait := "n=0; until test -e /c/%s; do n=$((n+1)); test $n -lt 2000000; done"
	h.mustBuild("FROM base AS a\nRUN --mount=type=cache,target=/c,id=meet set -e; echo > /c/a; "+strings.ReplaceAll(wait, "%s", "b")+"; echo a > /a\n"+
		"FROM base AS b\nRUN --mount=type=cache,target=/c,id=meet set -e; echo > /c/b; "+strings.ReplaceAll(wait, "%s", "a")+"; echo b > /b\n"+
		"FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n", nil)
	var steps []string
	for _, line := range h.lines {
		if strings.HasPrefix(line, "Step ") {
			steps = append(steps, line)
		}
	}
	if len(steps) != 7 || !slices.IsSorted(steps) {
		t.Errorf("steps out of order: %q", steps)
	}
}

func TestTwentyStepsComeFromTheCache(t *testing.T) {
	h := newHost(t)
	dockerfile := "FROM base\n"
	for i := range 19 {
		dockerfile += "RUN echo " + strings.Repeat("x", i+1) + " > /f" + string(rune('a'+i)) + "\n"
	}
	h.mustBuild(dockerfile, nil)
	start := time.Now()
	r := h.mustBuild(dockerfile, nil)
	t.Logf("rebuilt in %v", time.Since(start))
	if len(h.cached()) != 19 || len(r.Image.RootFS.DiffIDs) != 20 {
		t.Errorf("%d steps from the cache, %d layers", len(h.cached()), len(r.Image.RootFS.DiffIDs))
	}
}
