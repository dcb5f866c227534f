package server

import (
	"errors"
	"io"
	"net/http"
	"strings"

	registrywire "github.com/moby/moby/api/types/registry"
	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"davit/image"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/auth"
)

func (s *Server) listImages(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	if name := r.query("filter"); name != "" && r.version.before(41) {
		f["reference"] = append(f["reference"], name)
	}
	list, err := s.Engine.Images.List(r.Context(), r.flag("all"), f)
	if err != nil {
		return err
	}
	for i := range list {
		if r.version.before(43) && len(list[i].RepoTags) == 0 {
			list[i].RepoTags = []string{"<none>:<none>"}
		}
		if r.version.before(48) {
			list[i].Descriptor = nil
		}
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *Server) inspectImage(w http.ResponseWriter, r *request) error {
	platform, err := platformOf(r.query("platform"))
	if err != nil {
		return err
	}
	i, err := s.Engine.Images.Inspect(r.Context(), r.vars["name"], platform)
	if err != nil {
		return err
	}
	if r.version.before(48) {
		i.Descriptor = nil
	}
	return writeJSON(w, http.StatusOK, inspectedImage(i, r))
}

func (s *Server) imageHistory(w http.ResponseWriter, r *request) error {
	list, err := s.Engine.Images.History(r.Context(), r.vars["name"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *Server) tagImage(w http.ResponseWriter, r *request) error {
	if err := s.Engine.Images.Tag(r.Context(), r.vars["name"], r.query("repo"), r.query("tag")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *Server) removeImage(w http.ResponseWriter, r *request) error {
	list, err := s.Engine.Images.Remove(r.Context(), r.vars["name"], image.RemoveOptions{Force: r.flag("force"), NoPrune: r.flag("noprune")})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *Server) pruneImages(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	report, err := s.Engine.Images.Prune(r.Context(), f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

func (s *Server) searchImages(http.ResponseWriter, *request) error {
	return errdefs.NotImplemented("search is a service of Docker Hub alone, which davit does not ask; look at https://hub.docker.com/search")
}

// credentials are those that a client sent for a registry.
func credentials(r *request) (auth.Credentials, error) {
	return auth.DecodeHeader(r.Header.Get(registrywire.AuthHeader))
}

// createImage pulls (fromImage) or imports (fromSrc).
func (s *Server) createImage(w http.ResponseWriter, r *request) error {
	platform, err := platformOf(r.query("platform"))
	if err != nil {
		return err
	}
	if r.query("fromImage") != "" {
		return s.pullImage(w, r, platform)
	}
	return s.importImage(w, r, platform)
}

// pullReference joins the parameters fromImage and tag, of which the latter may be a digest.
func pullReference(name, tag string) (ref.Ref, error) {
	if tag != "" {
		separator := ":"
		if strings.Contains(tag, ":") {
			separator = "@"
		}
		name += separator + tag
	}
	r, err := ref.Parse(name)
	if err != nil {
		return ref.Ref{}, err
	}
	return r, nil
}

func (s *Server) pullImage(w http.ResponseWriter, r *request, platform *oci.Platform) error {
	name, err := pullReference(r.query("fromImage"), r.query("tag"))
	if err != nil {
		return err
	}
	creds, err := credentials(r)
	if err != nil {
		return err
	}
	if name.FamiliarName() == "scratch" {
		return errdefs.Invalid("'scratch' is a reserved name")
	}
	names := []ref.Ref{name}
	if name.Tag == "" && name.Digest == "" {
		if names, err = s.everyTag(r, name, creds); err != nil {
			return err
		}
	}
	m := s.newMessages(w)
	for _, name := range names {
		if _, err := s.Engine.Images.Pull(r.Context(), name, platform, creds, m.progress); err != nil {
			return m.fail(err)
		}
	}
	return nil
}

// everyTag is what a pull without tag means: all of them, as docker pull -a sends it.
func (s *Server) everyTag(r *request, name ref.Ref, creds auth.Credentials) ([]ref.Ref, error) {
	tags, err := s.Engine.Images.Tags(r.Context(), name, creds)
	if err != nil {
		return nil, err
	}
	var all []ref.Ref
	for _, tag := range tags {
		all = append(all, name.WithTag(tag))
	}
	return all, nil
}

func (s *Server) importImage(w http.ResponseWriter, r *request, platform *oci.Platform) error {
	if platform != nil && platform.OS != "linux" {
		return errdefs.Invalid("operating system is not supported: %s", platform.OS)
	}
	source := r.query("fromSrc")
	content := io.ReadCloser(r.Body)
	if source != "-" {
		body, err := fetch(r.Context(), source)
		if err != nil {
			return err
		}
		content = body
	}
	defer content.Close()
	o := image.ImportOptions{Changes: r.form["changes"], Message: r.query("message"), Platform: platform}
	if repo := r.query("repo"); repo != "" {
		name, err := pullReference(repo, r.query("tag"))
		if err != nil {
			return err
		}
		if name.Digest != "" {
			return errdefs.Invalid("cannot import digest reference")
		}
		o.Names = []ref.Ref{name.WithDefaultTag()}
	}
	m := s.newMessages(w)
	o.Progress = m.progress
	img, err := s.Engine.Images.Import(r.Context(), content, o)
	if err != nil {
		return m.fail(err)
	}
	m.status("", string(img.ID))
	return nil
}

func (s *Server) pushImage(w http.ResponseWriter, r *request) error {
	name, err := pullReference(r.vars["name"], r.query("tag"))
	if err != nil {
		return err
	}
	creds, err := credentials(r)
	if err != nil {
		return err
	}
	platform, err := platformOf(r.query("platform"))
	if err != nil {
		return err
	}
	names := []ref.Ref{name}
	if name.Tag == "" && name.Digest == "" {
		tags, err := s.Engine.Images.LocalTags(r.Context(), name)
		if err != nil {
			return err
		}
		names = nil
		for _, tag := range tags {
			names = append(names, name.WithTag(tag))
		}
	}
	m := s.newMessages(w)
	for _, name := range names {
		pushed, err := s.Engine.Images.Push(r.Context(), name, platform, creds, m.progress)
		if err != nil {
			return m.fail(err)
		}
		m.aux(struct {
			Tag    string
			Digest oci.Digest
			Size   int64
		}{pushed.Tag, pushed.Digest, pushed.Size})
	}
	return nil
}

// saveImages sends one archive of the image in the path, or of those in "names".
func (s *Server) saveImages(w http.ResponseWriter, r *request) error {
	var names []string
	for _, value := range r.form["names"] {
		for name := range strings.SplitSeq(value, ",") {
			names = append(names, name)
		}
	}
	if name := r.vars["name"]; name != "" {
		names = []string{name}
	}
	if len(names) == 0 {
		return errdefs.Invalid("no image to save")
	}
	out := &lateHeader{ResponseWriter: w, kind: "application/x-tar"}
	err := s.Engine.Images.Save(r.Context(), names, r.form["since"], out)
	if err != nil && out.begun {
		s.Log.Warn("save images", "error", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

// lateHeader sets the content type with the first byte, so that an error before it can still be told.
type lateHeader struct {
	http.ResponseWriter
	kind  string
	begun bool
}

func (l *lateHeader) Write(p []byte) (int, error) {
	if !l.begun {
		l.begun = true
		l.Header().Set("Content-Type", l.kind)
	}
	return l.ResponseWriter.Write(p)
}

func (s *Server) loadImages(w http.ResponseWriter, r *request) error {
	platform, err := platformOf(r.query("platform"))
	if err != nil {
		return err
	}
	m := s.newMessages(w)
	o := image.LoadOptions{Platform: platform}
	if !r.flag("quiet") {
		o.Progress = m.progress
	}
	loaded, err := s.Engine.Images.Load(r.Context(), r.Body, o)
	if err != nil {
		return m.fail(err)
	}
	for _, l := range loaded {
		if l.Name != "" {
			m.stream("Loaded image: " + l.Name + "\n")
		} else {
			m.stream("Loaded image ID: " + string(l.ID) + "\n")
		}
	}
	return nil
}

func (s *Server) distribution(w http.ResponseWriter, r *request) error {
	name, err := ref.Parse(r.vars["name"])
	if err != nil {
		return err
	}
	creds, err := credentials(r)
	if err != nil {
		return err
	}
	desc, platforms, err := s.Engine.Images.Distribution(r.Context(), name, creds)
	if err != nil {
		return err
	}
	answer := registrywire.DistributionInspect{
		Descriptor: ocispec.Descriptor{MediaType: desc.MediaType, Digest: godigest.Digest(desc.Digest), Size: desc.Size},
		Platforms:  []ocispec.Platform{},
	}
	for _, p := range platforms {
		answer.Platforms = append(answer.Platforms, ocispec.Platform{Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, Variant: p.Variant})
	}
	return writeJSON(w, http.StatusOK, answer)
}

func (s *Server) login(w http.ResponseWriter, r *request) error {
	creds := auth.Credentials{}
	if err := r.decode(&creds, false); err != nil {
		return err
	}
	token, err := s.Engine.Images.Login(r.Context(), creds)
	if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrUnauthorized) {
		return errdefs.As(errdefs.ErrUnauthorized, err)
	}
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, registrywire.AuthResponse{Status: "Login Succeeded", IdentityToken: token})
}
