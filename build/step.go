package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"davit/build/cache"
	"davit/build/export"
	"davit/build/op"
	"davit/build/plan"
	"davit/build/tree"
	"davit/oci"
	"davit/oci/errdefs"
)

// stepOp carries out one step, or takes its outcome from the cache.
type stepOp struct {
	job  *job
	plan plan.Step
	step *Step
}

// work is a step that is ready to run. Its key is empty if its outcome must not be kept.
type work struct {
	key   string
	run   func(ctx context.Context) (oci.DiffID, error)
	close func() error
}

// Do implements solve.Op. in[0] is the state before the step, the rest its --from.
func (o *stepOp) Do(ctx context.Context, in []*state) (*state, error) {
	o.job.emit(Event{Kind: StepStarted, Step: o.step})
	record, cached, err := o.outcome(ctx, in)
	if err != nil {
		return nil, o.job.failed(ctx, o.step, err)
	}
	if epoch, ok := o.job.epoch(); ok {
		record.Created = epoch
	}
	after := &state{image: export.Append(in[0].image, o.plan, record.Layer, record.Created)}
	if after.id, err = export.ID(after.image); err != nil {
		return nil, o.job.failed(ctx, o.step, err)
	}
	o.job.emit(Event{Kind: StepDone, Step: o.step, Image: after.id, Cached: cached})
	return after, nil
}

// outcome looks the step up and runs it if need be. Two builds, or two stages, with the same step run
// it once.
func (o *stepOp) outcome(ctx context.Context, in []*state) (r cache.Record, cached bool, err error) {
	w, err := o.prepare(ctx, in)
	if err != nil {
		return cache.Record{}, false, err
	}
	defer func() {
		if closeErr := w.close(); err == nil {
			err = closeErr
		}
	}()
	unlock, err := o.job.keys.Lock(ctx, w.key)
	if err != nil {
		return cache.Record{}, false, err
	}
	defer unlock()
	if r, ok := o.lookUp(ctx, w.key, in[0].layers()); ok {
		return r, true, nil
	}
	layer, err := w.run(ctx)
	if err != nil {
		return cache.Record{}, false, err
	}
	r = cache.Record{Key: w.key, Layer: layer, Created: o.job.Now(), Text: o.plan.CreatedBy}
	if layer != "" {
		if r.Size, err = o.job.Layers.Size(ctx, append(slices.Clip(in[0].layers()), layer)); err != nil {
			return cache.Record{}, false, fmt.Errorf("measure layer: %w", err)
		}
	}
	o.job.Cache.Put(r)
	return r, false, nil
}

// lookUp finds a record whose layer is still there.
func (o *stepOp) lookUp(ctx context.Context, key string, below []oci.DiffID) (cache.Record, bool) {
	if o.job.request.NoCache {
		return cache.Record{}, false
	}
	r, ok := o.job.Cache.Get(key)
	if !ok || r.Layer == "" {
		return r, ok
	}
	if _, err := o.job.Layers.Dirs(ctx, append(slices.Clip(below), r.Layer)); err != nil {
		o.job.Cache.Drop(key)
		return cache.Record{}, false
	}
	return r, true
}

// prepare finds what the step depends on, and from that its key.
func (o *stepOp) prepare(ctx context.Context, in []*state) (*work, error) {
	layers := in[0].layers()
	switch step := o.plan.Op.(type) {
	case *plan.Copy:
		return o.prepareCopy(ctx, step, layers, in[1:])
	case *plan.Run:
		return o.prepareRun(ctx, step, layers, in[1:])
	case *plan.Workdir:
		user := o.plan.Config.User
		return &work{
			key: keyOf("workdir", chain(layers), step.Dir, user),
			run: func(ctx context.Context) (oci.DiffID, error) {
				return o.job.worker.Workdir(ctx, layers, step.Dir, user)
			},
			close: nothing,
		}, nil
	}
	return &work{
		key:   keyOf("config", string(in[0].id), o.plan.CreatedBy, o.plan.Platform.String()),
		run:   func(context.Context) (oci.DiffID, error) { return "", nil },
		close: nothing,
	}, nil
}

func nothing() error { return nil }

func (o *stepOp) prepareCopy(ctx context.Context, step *plan.Copy, layers []oci.DiffID, in []*state) (*work, error) {
	from := o.job.files
	if len(in) > 0 {
		files, err := o.job.worker.Tree(ctx, in[0].layers())
		if err != nil {
			return nil, err
		}
		from = files
	}
	c, err := o.job.worker.PrepareCopy(ctx, step, from)
	if err != nil {
		return nil, err
	}
	below := chain(layers)
	if step.Link && strings.Trim(step.Chown, "0123456789:") == "" {
		below = "" // its layer is the same over any other
	}
	return &work{
		key: keyOf("copy", below, c.Digest(), step.Dest, step.Chown, step.Chmod, fmt.Sprint(step.Add, step.Link, step.Parents, unpack(step))),
		run: func(ctx context.Context) (oci.DiffID, error) {
			return o.job.worker.Copy(ctx, layers, c)
		},
		close: c.Close,
	}, nil
}

func unpack(step *plan.Copy) string {
	if step.Unpack == nil {
		return "auto"
	}
	return fmt.Sprint(*step.Unpack)
}

func (o *stepOp) prepareRun(ctx context.Context, step *plan.Run, layers []oci.DiffID, in []*state) (*work, error) {
	if err := o.entitled(step); err != nil {
		return nil, err
	}
	run := &op.Run{
		Step: step, Network: o.job.request.Network, ExtraHosts: o.job.request.ExtraHosts, Limits: o.job.request.Limits,
		Stdout: o.output(false), Stderr: o.output(true),
		Started: func(id string) { o.job.emit(Event{Kind: StepRunning, Step: o.step, Container: id}) },
	}
	if o.job.request.Secrets != nil {
		run.Secrets = o.job.request.Secrets.Secret
	}
	for _, m := range step.Mounts {
		var files tree.Tree = o.job.files
		if !m.From.IsZero() {
			union, err := o.job.worker.Tree(ctx, in[0].layers())
			if err != nil {
				return nil, err
			}
			files, in = union, in[1:]
		}
		run.Sources = append(run.Sources, files)
	}
	digest, err := o.job.worker.Digest(run)
	if err != nil {
		return nil, err
	}
	return &work{
		key:   keyOf("run", chain(layers), digest),
		run:   func(ctx context.Context) (oci.DiffID, error) { return o.job.worker.Run(ctx, layers, run) },
		close: nothing,
	}, nil
}

// entitled refuses what the request does not allow to its Dockerfile. A build that runs in the host's
// network as a whole allows that to each step.
func (o *stepOp) entitled(step *plan.Run) error {
	allowed := o.job.request.Entitlements
	if step.Insecure && !slices.Contains(allowed, EntitlementInsecure) {
		return errdefs.Forbidden("RUN --security=insecure is not allowed: this build has no entitlement %s", EntitlementInsecure)
	}
	if step.Network == "host" && o.job.request.Network != "host" && !slices.Contains(allowed, EntitlementNetworkHost) {
		return errdefs.Forbidden("RUN --network=host is not allowed: this build has no entitlement %s", EntitlementNetworkHost)
	}
	return nil
}

// output passes on what a step's process writes.
func (o *stepOp) output(stderr bool) writerFunc {
	return func(b []byte) (int, error) {
		o.job.emit(Event{Kind: StepOutput, Step: o.step, Data: slices.Clone(b), Stderr: stderr})
		return len(b), nil
	}
}

type writerFunc func([]byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// chain names all layers below a step.
func chain(layers []oci.DiffID) string { return string(oci.Chain(layers...)) }

// keyOf hashes the parts of a cache key. The first names the kind of step, and its version: a change
// to what such a step makes gets a new name.
func keyOf(parts ...string) string {
	sum := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(sum, "%d:%s,", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
