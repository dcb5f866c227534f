package cli

import (
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"davit/oci/errdefs"
)

// parsed returns the flags of a command line.
func parsed(t *testing.T, args ...string) *buildFlags {
	t.Helper()
	f := &buildFlags{}
	cmd := &cobra.Command{}
	f.add(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestBuildQuery(t *testing.T) {
	t.Setenv("FROM_ENV", "e")
	q, err := parsed(t, "-t", "a", "-t", "b:1", "--build-arg", "A=1=2", "--build-arg", "FROM_ENV", "--build-arg", "UNSET_HERE",
		"--label", "l=m", "--label", "n", "-m", "64m", "--memory-swap", "-1", "--shm-size", "1k", "--no-cache", "--pull", "--target", "x",
		"--add-host", "h:1.2.3.4", "--add-host", "six=[::1]", "--add-host", "g:host-gateway", "--ulimit", "nofile=1:2", "--cache-from", "c,d",
		"--cpuset-cpus", "0-1", "-c", "5", "--platform", "linux/amd64").query()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"t": "a b:1", "buildargs": `{"A":"1=2","FROM_ENV":"e","UNSET_HERE":null}`, "labels": `{"l":"m","n":""}`, "memory": "67108864",
		"memswap": "-1", "shmsize": "1024", "nocache": "1", "pull": "1", "target": "x", "extrahosts": "h:1.2.3.4 six:::1 g:host-gateway",
		"ulimits": `[{"Name":"nofile","Hard":2,"Soft":1}]`, "cachefrom": `["c","d"]`, "cpusetcpus": "0-1", "cpushares": "5",
		"platform": "linux/amd64", "rm": "1", "networkmode": "default", "version": "1", "forcerm": "", "q": "",
	} {
		if got := strings.Join(q[name], " "); got != want {
			t.Errorf("%s=%q, want %q", name, got, want)
		}
	}
	if q, err := parsed(t, "--rm=false").query(); err != nil || q.Get("rm") != "0" {
		t.Errorf("--rm=false: %v %v", q, err)
	}
}

func TestBuildRefusals(t *testing.T) {
	for _, args := range []string{"-t BAD", "-m 1q", "--add-host x", "--add-host x:y", "--ulimit x"} {
		if _, err := parsed(t, strings.Fields(args)...).query(); err == nil {
			t.Errorf("%s is taken", args)
		}
	}
	for _, args := range []string{"--secret id=x", "--ssh default", "-o type=local,dest=x", "--sbom true"} {
		if err := parsed(t, strings.Fields(args)...).check(); !errors.Is(err, errdefs.ErrNotImplemented) {
			t.Errorf("%s: %v", args, err)
		}
	}
	if err := parsed(t, "--push").check(); err == nil {
		t.Error("--push without a tag is taken")
	}
	if err := parsed(t, "--load", "--provenance=false", "-o", "type=docker").check(); err != nil {
		t.Error(err)
	}
}
