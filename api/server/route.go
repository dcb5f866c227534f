package server

import (
	"net/http"
	"net/url"
	"strings"

	"davit/oci/errdefs"
)

// routes are the patterns by their first part, so that a look-up compares few.
type routes map[string][]route

// route is a method, a pattern and who answers. A part {name} of the pattern stands for one part of a
// path, {name...} for one or more: the names of images hold slashes.
type route struct {
	method string
	parts  []string
	handle handler
}

func (t routes) add(method, pattern string, handle handler) {
	parts := strings.Split(strings.Trim(pattern, "/"), "/")
	t[parts[0]] = append(t[parts[0]], route{method, parts, handle})
}

// find returns who answers a request. The path is as it came, still escaped.
func (t routes) find(method, path string) (handler, map[string]string, bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	candidates := append(t[parts[0]], t["{any...}"]...)
	for _, r := range candidates {
		if r.method != method && r.method != "*" {
			continue
		}
		if vars, ok := match(r.parts, parts); ok {
			return r.handle, vars, true
		}
	}
	return nil, nil, false
}

// match compares a pattern with a path. At most one part of a pattern stands for several.
func match(pattern, path []string) (map[string]string, bool) {
	vars := map[string]string{}
	for i, p := range pattern {
		if name, ok := strings.CutSuffix(strings.TrimPrefix(p, "{"), "...}"); ok {
			after := len(pattern) - i - 1
			if len(path)-after <= i {
				return nil, false
			}
			vars[name] = unescape(strings.Join(path[i:len(path)-after], "/"))
			path = append(append([]string{}, path[:i+1]...), path[len(path)-after:]...)
			continue
		}
		if i >= len(path) {
			return nil, false
		}
		if strings.HasPrefix(p, "{") {
			vars[strings.Trim(p, "{}")] = unescape(path[i])
			if path[i] == "" {
				return nil, false
			}
			continue
		}
		if p != path[i] {
			return nil, false
		}
	}
	return vars, len(path) == len(pattern)
}

func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

// table is every route there is.
func (s *Server) table() routes {
	t := routes{}
	get, post, put, del, head := http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodHead
	for _, r := range []struct {
		method, pattern string
		handle          handler
	}{
		{get, "/_ping", s.ping},
		{head, "/_ping", s.ping},
		{get, "/version", s.versionInfo},
		{get, "/info", s.info},
		{get, "/events", s.events},
		{get, "/system/df", s.diskUsage},
		{post, "/auth", s.login},

		{get, "/containers/json", s.listContainers},
		{post, "/containers/create", s.createContainer},
		{post, "/containers/prune", s.pruneContainers},
		{get, "/containers/{id}/json", s.inspectContainer},
		{get, "/containers/{id}/top", s.top},
		{get, "/containers/{id}/logs", s.logs},
		{get, "/containers/{id}/changes", s.changes},
		{get, "/containers/{id}/export", s.export},
		{get, "/containers/{id}/stats", s.stats},
		{get, "/containers/{id}/attach/ws", s.attachWebSocket},
		{get, "/containers/{id}/archive", s.getArchive},
		{head, "/containers/{id}/archive", s.statArchive},
		{put, "/containers/{id}/archive", s.putArchive},
		{post, "/containers/{id}/start", s.start},
		{post, "/containers/{id}/stop", s.stop},
		{post, "/containers/{id}/restart", s.restart},
		{post, "/containers/{id}/kill", s.kill},
		{post, "/containers/{id}/pause", s.pause},
		{post, "/containers/{id}/unpause", s.unpause},
		{post, "/containers/{id}/wait", s.wait},
		{post, "/containers/{id}/resize", s.resize},
		{post, "/containers/{id}/attach", s.attach},
		{post, "/containers/{id}/rename", s.rename},
		{post, "/containers/{id}/update", s.update},
		{post, "/containers/{id}/exec", s.createExec},
		{del, "/containers/{id}", s.removeContainer},
		{post, "/commit", s.commit},
		{get, "/containers/{id}/checkpoints", s.noCheckpoints},
		{post, "/containers/{id}/checkpoints", s.noCheckpoints},
		{del, "/containers/{id}/checkpoints/{name}", s.noCheckpoints},
		{post, "/exec/{id}/start", s.startExec},
		{post, "/exec/{id}/resize", s.resizeExec},
		{get, "/exec/{id}/json", s.inspectExec},

		{get, "/images/json", s.listImages},
		{post, "/images/create", s.createImage},
		{post, "/images/load", s.loadImages},
		{post, "/images/prune", s.pruneImages},
		{get, "/images/search", s.searchImages},
		{get, "/images/get", s.saveImages},
		{get, "/images/{name...}/get", s.saveImages},
		{get, "/images/{name...}/json", s.inspectImage},
		{get, "/images/{name...}/history", s.imageHistory},
		{post, "/images/{name...}/push", s.pushImage},
		{post, "/images/{name...}/tag", s.tagImage},
		{del, "/images/{name...}", s.removeImage},
		{get, "/distribution/{name...}/json", s.distribution},
		{post, "/build", s.build},
		{post, "/build/prune", s.pruneBuild},
		{post, "/build/cancel", s.cancelBuild},

		{get, "/networks", s.listNetworks},
		{get, "/networks/{id}", s.inspectNetwork},
		{post, "/networks/create", s.createNetwork},
		{post, "/networks/prune", s.pruneNetworks},
		{post, "/networks/{id}/connect", s.connectNetwork},
		{post, "/networks/{id}/disconnect", s.disconnectNetwork},
		{del, "/networks/{id}", s.removeNetwork},

		{get, "/volumes", s.listVolumes},
		{get, "/volumes/{name}", s.inspectVolume},
		{post, "/volumes/create", s.createVolume},
		{post, "/volumes/prune", s.pruneVolumes},
		{del, "/volumes/{name}", s.removeVolume},
		{put, "/volumes/{name}", s.notASwarm},

		{get, "/plugins", emptyList},
		{get, "/plugins/privileges", noPlugins},
		{post, "/plugins/pull", noPlugins},
		{post, "/plugins/create", noPlugins},
		{post, "/swarm/init", noSwarm},
		{post, "/swarm/join", noSwarm},
		{get, "/plugins/{name...}", noPlugin},
		{post, "/plugins/{name...}", noPlugin},
		{del, "/plugins/{name...}", noPlugin},
		{post, "/davit/run", s.run},
		{post, "/davit/containers/{id}/logs/clear", s.clearLogs},
		{post, "/davit/containers/{id}/replace", s.replaceContainer},
		{get, "/davit/images/{name...}/history", s.tagLog},
		{post, "/davit/images/{name...}/rollback", s.rollbackTag},
		{http.MethodOptions, "/{any...}", func(http.ResponseWriter, *request) error { return nil }},
	} {
		t.add(r.method, r.pattern, r.handle)
	}
	for _, noun := range []string{"swarm", "nodes", "services", "tasks", "secrets", "configs"} {
		t.add("*", "/"+noun, s.notASwarm)
		t.add("*", "/"+noun+"/{any...}", s.notASwarm)
	}
	return t
}

func (s *Server) notASwarm(http.ResponseWriter, *request) error {
	return errdefs.Unavailable("This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.")
}

func noSwarm(http.ResponseWriter, *request) error {
	return errdefs.NotImplemented("davit runs containers on this host alone and forms no swarm")
}

func noPlugins(http.ResponseWriter, *request) error {
	return errdefs.NotImplemented("davit has no plugins: its drivers for volumes, networks and logs are built in")
}

func (s *Server) noCheckpoints(http.ResponseWriter, *request) error {
	return errdefs.NotImplemented("checkpoints are not supported")
}

func emptyList(w http.ResponseWriter, _ *request) error {
	return writeJSON(w, http.StatusOK, []struct{}{})
}

func noPlugin(_ http.ResponseWriter, r *request) error {
	return errdefs.NotFound("plugin %q not found", strings.TrimSuffix(r.vars["name"], "/json"))
}
