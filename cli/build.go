package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"davit/api/client"
	"davit/cli/buildcontext"
	"davit/cli/progress"
	"davit/oci/ref"
	"davit/registry/auth"
)

func (a *app) buildCommand() *cobra.Command {
	var f buildFlags
	cmd := &cobra.Command{
		Use:   "build [OPTIONS] PATH | URL | -",
		Short: "Build an image from a Dockerfile",
		Args:  exactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.build(cmd.Context(), args[0], f) },
	}
	f.add(cmd)
	return cmd
}

func (a *app) build(ctx context.Context, source string, f buildFlags) error {
	f.quiet = f.quiet || f.progress == "quiet"
	if err := f.check(); err != nil {
		return err
	}
	query, err := f.query()
	if err != nil {
		return err
	}
	body, err := a.buildContext(source, f.file, query)
	if err != nil {
		return err
	}
	if body != nil {
		defer body.Close()
	}
	header, err := a.buildHeader(ctx)
	if err != nil {
		return err
	}
	request := client.Request{Method: "POST", Path: "/build", Query: query, Header: header}
	if body != nil {
		request.Body = body
	}
	id, err := a.followBuild(ctx, request, f.quiet)
	if err != nil {
		if cause := body.failure(); cause != nil {
			return cause
		}
		return nameDockerfile(err, query.Get("dockerfile"), f.file)
	}
	if f.iidFile != "" {
		if err := os.WriteFile(f.iidFile, []byte(id), 0o666); err != nil {
			return fmt.Errorf("write the image ID: %w", err)
		}
	}
	return a.pushBuilt(ctx, f)
}

// nameDockerfile puts the user's name of the Dockerfile for the one under which it was sent.
func nameDockerfile(err error, sent, named string) error {
	if sent == "" || sent == named || named == "" {
		return err
	}
	if named == "-" {
		named = buildcontext.DefaultDockerfile
	}
	rename := func(message string) string { return strings.Replace(message, sent+":", named+":", 1) }
	var failed *progress.Failure
	var refused *client.Error
	switch {
	case errors.As(err, &failed):
		return &progress.Failure{Code: failed.Code, Message: rename(failed.Message)}
	case errors.As(err, &refused):
		return &client.Error{Status: refused.Status, Message: rename(refused.Message)}
	}
	return err
}

// followBuild shows the build and returns the image's ID. A quiet build prints the ID, or, when it fails, all
// it would have shown.
func (a *app) followBuild(ctx context.Context, request client.Request, quiet bool) (id string, err error) {
	shown := display(a.out)
	var kept bytes.Buffer
	if quiet {
		shown = &progress.Display{Out: &kept}
	}
	shown.Aux = func(raw json.RawMessage) {
		var built struct{ ID string }
		if json.Unmarshal(raw, &built) == nil && built.ID != "" {
			id = built.ID
		}
	}
	if err := a.follow(ctx, request, shown); err != nil {
		_, _ = a.err.Write(kept.Bytes()) // the error to report is the build's
		return "", err
	}
	if quiet {
		if id == "" {
			id = strings.TrimSpace(kept.String())
		}
		fmt.Fprintln(a.out, id)
	}
	return id, nil
}

// pushBuilt pushes the tags, if that was asked for.
func (a *app) pushBuilt(ctx context.Context, f buildFlags) error {
	if !f.push {
		return nil
	}
	for _, tag := range f.tags {
		name, err := ref.Parse(tag)
		if err != nil {
			return err
		}
		if err := a.push(ctx, name.WithDefaultTag(), "", f.quiet); err != nil {
			return fmt.Errorf("push %s: %w", tag, err)
		}
	}
	return nil
}

// buildHeader says that the body is a tar, and as whom base images may be pulled.
func (a *app) buildHeader(ctx context.Context) (client.Header, error) {
	config, err := a.credentials()
	if err != nil {
		return nil, err
	}
	byServer := map[string]auth.Credentials{}
	for host, known := range config.All(ctx) {
		byServer[auth.ConfigKey(host)] = known
	}
	encoded, err := json.Marshal(byServer)
	if err != nil {
		return nil, err
	}
	return client.Header{"Content-Type": "application/x-tar", "X-Registry-Config": base64.URLEncoding.EncodeToString(encoded)}, nil
}

// buildContext is what to send: a directory's tar, standard input, or nothing but an address that the engine
// fetches. It sets the parameters that tell which.
func (a *app) buildContext(source, dockerfile string, query url.Values) (*contextBody, error) {
	switch {
	case source == "-" && dockerfile == "-":
		return nil, errors.New("invalid argument: can't use stdin for both build context and dockerfile")
	case source == "-":
		return a.stdinContext(dockerfile, query)
	case isRemoteContext(source):
		query.Set("remote", source)
		setIf(query, "dockerfile", filepath.ToSlash(dockerfile))
		return nil, nil
	}
	var content []byte
	if dockerfile == "-" {
		var err error
		if content, err = io.ReadAll(a.in); err != nil {
			return nil, fmt.Errorf("read the Dockerfile: %w", err)
		}
		dockerfile = ""
		if content == nil {
			content = []byte{}
		}
	}
	c, err := buildcontext.New(source, dockerfile, content)
	if err != nil {
		return nil, err
	}
	query.Set("dockerfile", c.Dockerfile)
	return packed(c), nil
}

// stdinContext is a tar on standard input as it is, or a Dockerfile without files.
func (a *app) stdinContext(dockerfile string, query url.Values) (*contextBody, error) {
	in := bufio.NewReaderSize(a.in, 64<<10)
	head, err := in.Peek(buildcontext.HeadLength)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the build context: %w", err)
	}
	if buildcontext.IsArchive(head) {
		setIf(query, "dockerfile", filepath.ToSlash(dockerfile))
		return &contextBody{ReadCloser: io.NopCloser(in)}, nil
	}
	content, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("read the Dockerfile: %w", err)
	}
	body, err := buildcontext.FromDockerfile(content)
	if err != nil {
		return nil, err
	}
	return &contextBody{ReadCloser: io.NopCloser(body)}, nil
}

// isRemoteContext tells what the engine fetches: archives, Dockerfiles and git repositories.
func isRemoteContext(source string) bool {
	if isURL(source) {
		return true
	}
	for _, prefix := range []string{"git://", "git@", "ssh://", "github.com/"} {
		if strings.HasPrefix(source, prefix) {
			return true
		}
	}
	return false
}

// contextBody is a context on its way.
type contextBody struct {
	io.ReadCloser
	failed chan error // what making the tar met
}

// packed makes the tar while it is sent.
func packed(c *buildcontext.Context) *contextBody {
	r, w := io.Pipe()
	failed := make(chan error, 1)
	go func() {
		_, err := c.WriteTo(w)
		if err != nil && !errors.Is(err, io.ErrClosedPipe) {
			failed <- err
		}
		_ = w.CloseWithError(err) // never fails
	}()
	return &contextBody{r, failed}
}

// failure is why a context ended early, if that is why a build failed.
func (b *contextBody) failure() error {
	if b == nil {
		return nil
	}
	select {
	case err := <-b.failed:
		return err
	default:
		return nil
	}
}
