package server

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"davit/build"
	"davit/engine"
	"davit/image"
	"davit/oci/errdefs"
	"davit/registry/auth"
)

// build answers POST /build as the classic builder does: text in messages, the image's ID at the end.
func (s *Server) build(w http.ResponseWriter, r *request) error {
	if r.query("version") == "2" {
		return errdefs.Invalid("a BuildKit build needs a session over gRPC, which is not served here; set DOCKER_BUILDKIT=0")
	}
	q, err := buildRequest(r)
	if err != nil {
		return err
	}
	m := s.newMessages(w)
	send := func(line build.Message) {
		if b, err := json.Marshal(line); err == nil {
			m.raw(b)
		}
	}
	quiet := r.flag("q")
	classic := build.NewClassic(func(line build.Message) {
		if !quiet {
			send(line)
		}
	}, build.Removal{Succeeded: r.query("rm") == "" || r.flag("rm"), Failed: r.flag("forcerm")})
	result, err := s.Engine.Builds.Build(r.Context(), engine.Source{Body: r.Body, Remote: r.query("remote")}, q, classic.Event)
	if err != nil {
		return m.fail(err)
	}
	classic.Finish(result)
	if quiet {
		m.stream(string(result.ID) + "\n")
	}
	return nil
}

// buildRequest reads the parameters.
func buildRequest(r *request) (build.Request, error) {
	q := build.Request{
		Dockerfile: r.query("dockerfile"), Tags: r.form["t"], Target: r.query("target"), NoCache: r.flag("nocache"), Pull: r.flag("pull"),
		Network: r.query("networkmode"), Args: map[string]string{}, Labels: map[string]string{}, Platform: image.HostPlatform(),
	}
	if isolation := r.query("isolation"); isolation != "" && isolation != "default" {
		return q, errdefs.Invalid("Unsupported isolation: %q", isolation)
	}
	if r.query("securityopt") != "" && r.query("securityopt") != "[]" && r.query("securityopt") != "null" {
		return q, errdefs.Invalid("The daemon on this platform does not support setting security options on build")
	}
	if hosts := r.query("extrahosts"); hosts != "" {
		q.ExtraHosts = r.form["extrahosts"]
	}
	platform, err := platformOf(r.query("platform"))
	if err != nil {
		return q, err
	}
	if platform != nil {
		q.Platform = *platform
	}
	args := map[string]*string{}
	for name, into := range map[string]any{"buildargs": &args, "labels": &q.Labels, "cachefrom": &q.CacheFrom} {
		if text := r.query(name); text != "" {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				return q, errdefs.New(errdefs.ErrInvalid, "invalid value for %s: %w", name, err)
			}
		}
	}
	for name, value := range args {
		if value != nil {
			q.Args[name] = *value
		}
	}
	creds, err := auth.DecodeConfigHeader(r.Header.Get("X-Registry-Config"))
	if err != nil {
		return q, err
	}
	q.Auth = creds
	q.Limits, err = buildLimits(r)
	return q, err
}

func buildLimits(r *request) (build.Limits, error) {
	l := build.Limits{CPUSetCPUs: r.query("cpusetcpus"), CPUSetMems: r.query("cpusetmems"), CgroupParent: r.query("cgroupparent")}
	for name, into := range map[string]*int64{
		"memory": &l.Memory, "memswap": &l.MemorySwap, "cpushares": &l.CPUShares, "cpuperiod": &l.CPUPeriod, "cpuquota": &l.CPUQuota, "shmsize": &l.ShmSize,
	} {
		text := r.query(name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return l, errdefs.Invalid("invalid value for %s: %q", name, text)
		}
		*into = n
	}
	text := r.query("ulimits")
	if text == "" {
		return l, nil
	}
	var ulimits []*units.Ulimit
	if err := json.Unmarshal([]byte(text), &ulimits); err != nil {
		return l, errdefs.New(errdefs.ErrInvalid, "invalid value for ulimits: %w", err)
	}
	for _, u := range ulimits {
		l.Ulimits = append(l.Ulimits, build.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	return l, nil
}

func (s *Server) pruneBuild(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	if err := f.Only("until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private", "mutable", "immutable", "label", "label!"); err != nil {
		return err
	}
	var unusedFor time.Duration
	for _, field := range []string{"until", "unused-for"} {
		if len(f[field]) > 0 {
			if unusedFor, err = time.ParseDuration(f[field][0]); err != nil {
				return errdefs.New(errdefs.ErrInvalid, "invalid filter '%s': %w", field, err)
			}
		}
	}
	keep := int64(0)
	for _, name := range []string{"reserved-space", "keep-storage"} {
		if n, err := strconv.ParseInt(strings.TrimSpace(r.query(name)), 10, 64); err == nil {
			keep = max(keep, n)
		}
	}
	report, err := s.Engine.Builds.Prune(r.Context(), r.flag("all"), unusedFor, keep)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

// cancelBuild has nothing to do: a build ends with the request that asked for it.
func (s *Server) cancelBuild(w http.ResponseWriter, _ *request) error {
	w.WriteHeader(http.StatusOK)
	return nil
}
