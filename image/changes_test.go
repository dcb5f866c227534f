package image

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"davit/oci"
	"davit/oci/errdefs"
)

func TestApplyChanges(t *testing.T) {
	base := oci.Config{Env: []string{"A=1", "B=2"}, Cmd: []string{"old"}, Labels: map[string]string{"keep": "yes"}, WorkingDir: "/srv"}
	got, err := ApplyChanges(base, []string{
		`CMD ["serve", "-v"]`, "ENTRYPOINT exec me", "ENV A=3 C=\"x y\"", "EXPOSE 80 9000-9001/udp", "USER joe:staff", "VOLUME /data /log",
		"WORKDIR sub", "LABEL a=b", "ONBUILD RUN true", "STOPSIGNAL SIGINT", "HEALTHCHECK --interval=5s CMD curl localhost", "",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := oci.Config{
		Cmd: []string{"serve", "-v"}, Entrypoint: []string{"/bin/sh", "-c", "exec me"}, Env: []string{"A=3", "B=2", "C=x y"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}, "9000/udp": {}, "9001/udp": {}}, User: "joe:staff",
		Volumes: map[string]struct{}{"/data": {}, "/log": {}}, WorkingDir: "/srv/sub", Labels: map[string]string{"keep": "yes", "a": "b"},
		OnBuild: []string{"RUN true"}, StopSignal: "SIGINT",
		Healthcheck: &oci.Healthcheck{Test: []string{"CMD-SHELL", "curl localhost"}, Interval: 5 * time.Second},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(base.Labels) != 1 || base.Env[0] != "A=1" {
		t.Errorf("the original configuration changed: %+v", base)
	}
	for _, bad := range []string{"RUN true", "FROM x", "NOPE", "EXPOSE x", "EXPOSE 90-80"} {
		if _, err := ApplyChanges(base, []string{bad}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("ApplyChanges(%s) = %v", bad, err)
		}
	}
}
