package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"davit/build/cache"
	buildcontext "davit/build/context"
	"davit/build/op"
	"davit/build/plan"
	"davit/build/solve"
	"davit/build/tree"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
)

// maxDockerfile bounds what is read into memory.
const maxDockerfile = 8 << 20

// Builder builds images. It is safe for concurrent use; builds share their cache.
type Builder struct {
	Options
	worker *op.Worker
	keys   op.Locks // of cache keys whose steps run
}

// New returns a Builder and makes its directories:
//
//	<root>/contexts/       archives of build contexts, for as long as their builds run
//	<root>/tmp/            see op.NewWorker
//	<root>/cache-mounts/   see op.NewWorker
func New(o Options) (*Builder, error) {
	if o.Parallel == 0 {
		o.Parallel = 2 * runtime.NumCPU()
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{}
	}
	if err := os.MkdirAll(filepath.Join(o.Root, "contexts"), 0o700); err != nil {
		return nil, fmt.Errorf("open builder: %w", err)
	}
	worker, err := op.NewWorker(op.Options{
		Root: o.Root, RunRoot: o.RunRoot, Layers: o.Layers, Runner: o.Runner,
		Hasher: tree.NewHasher(), HTTP: o.HTTP, Decompress: o.Decompress,
	})
	if err != nil {
		return nil, fmt.Errorf("open builder: %w", err)
	}
	return &Builder{Options: o, worker: worker}, nil
}

// OpenContext opens the build context of POST /build: the tar archive body, in any compression, or
// what the URL remote names if it is not empty. The caller closes it after the build.
func (b *Builder) OpenContext(ctx context.Context, body io.Reader, remote string) (buildcontext.Context, error) {
	dir := filepath.Join(b.Root, "contexts")
	if remote != "" {
		return buildcontext.Fetch(ctx, b.HTTP, remote, dir, b.Decompress)
	}
	plain, err := b.Decompress(body)
	if err != nil {
		return nil, fmt.Errorf("read build context: %w", err)
	}
	defer plain.Close()
	return buildcontext.ReadTar(plain, dir)
}

// Build builds the image that the request describes. Errors of the Dockerfile are *plan.Error, failed
// steps *StepError. progress may be nil.
func (b *Builder) Build(ctx context.Context, r Request, progress Progress) (Result, error) {
	tags, err := parseTags(r.Tags)
	if err != nil {
		return Result{}, err
	}
	defer b.Layers.Lease()()
	j, err := b.plan(r, progress)
	if err != nil {
		return Result{}, err
	}
	j.globals()
	last, err := solve.Solve(ctx, j.stage(j.plan.Target), b.Parallel)
	// Steps that worked are kept even if a later one failed.
	if flushErr := b.Cache.Flush(); flushErr != nil {
		b.Log.Warn("build cache is not kept", "err", flushErr)
	}
	if err != nil {
		return Result{}, err
	}
	j.warn()
	return b.keep(ctx, last, tags)
}

func parseTags(names []string) ([]ref.Ref, error) {
	var tags []ref.Ref
	for _, name := range names {
		tag, err := ref.Parse(name)
		if err != nil {
			return nil, err
		}
		if tag.Digest != "" {
			return nil, errdefs.Invalid("invalid reference format: %q: the name of a built image can not have a digest", name)
		}
		tags = append(tags, tag.WithDefaultTag())
	}
	return tags, nil
}

// plan reads the Dockerfile and prepares the job.
func (b *Builder) plan(r Request, progress Progress) (*job, error) {
	if r.Dockerfile == "" {
		r.Dockerfile = "Dockerfile"
	}
	if r.Context == nil {
		r.Context = tree.NewUnion(nil)
	}
	content, err := dockerfile(&r)
	if err != nil {
		return nil, err
	}
	host := oci.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if r.Platform.OS == "" {
		r.Platform = host
	}
	p, err := plan.Parse(content, plan.Options{Args: r.Args, Target: r.Target, Platform: r.Platform, BuildPlatform: host})
	if err != nil {
		return nil, inFile(r.Dockerfile, err)
	}
	if len(r.Labels) > 0 {
		p.Total++ // the step that adds them
	}
	files, err := buildcontext.Ignored(r.Context, r.Dockerfile)
	if err != nil {
		return nil, err
	}
	return &job{
		Builder: b, request: r, plan: p, files: files, progress: progress,
		stages: map[*plan.Stage]*vertex{}, images: map[plan.Ref]*vertex{},
		release: &sync.Mutex{},
	}, nil
}

// dockerfile returns the Dockerfile's content, and corrects its name if it is there in lower case.
func dockerfile(r *Request) ([]byte, error) {
	if r.DockerfileData != nil {
		return r.DockerfileData, nil
	}
	content, err := tree.ReadFile(r.Context, r.Dockerfile, maxDockerfile)
	if errors.Is(err, fs.ErrNotExist) && r.Dockerfile == "Dockerfile" {
		if content, err := tree.ReadFile(r.Context, "dockerfile", maxDockerfile); err == nil {
			r.Dockerfile = "dockerfile"
			return content, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdefs.Invalid("Cannot locate specified Dockerfile: %s", r.Dockerfile)
	}
	if err != nil {
		return nil, fmt.Errorf("read Dockerfile: %w", err)
	}
	return content, nil
}

// inFile names the Dockerfile in an error about it, unless it has its usual name.
func inFile(name string, err error) error {
	if strings.EqualFold(name, "Dockerfile") {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// keep stores the image, unless an earlier build made the same, and names it.
func (b *Builder) keep(ctx context.Context, last *state, tags []ref.Ref) (Result, error) {
	image, id, err := last.finish()
	if err != nil {
		return Result{}, err
	}
	if !b.Images.Has(ctx, id) {
		if id, err = b.Images.Put(ctx, image); err != nil {
			return Result{}, fmt.Errorf("store image: %w", err)
		}
	}
	result := Result{ID: id, Image: image}
	for _, tag := range tags {
		if err := b.Images.Tag(ctx, id, tag.String()); err != nil {
			return Result{}, fmt.Errorf("tag image: %w", err)
		}
		result.Tags = append(result.Tags, tag.Familiar())
	}
	return result, nil
}

// Prune forgets what the builder remembers of earlier steps. See also RemoveCacheMount.
func (b *Builder) Prune(o cache.PruneOptions) ([]cache.Record, error) { return b.Cache.Prune(o) }

// CacheMounts lists the directories of RUN --mount=type=cache.
func (b *Builder) CacheMounts(ctx context.Context) ([]op.CacheMount, error) {
	return b.worker.CacheMounts(ctx)
}

// RemoveCacheMount removes one; while a step uses it, it fails with errdefs.ErrConflict.
func (b *Builder) RemoveCacheMount(ctx context.Context, name string) error {
	return b.worker.RemoveCacheMount(ctx, name)
}
