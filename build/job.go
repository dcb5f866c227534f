package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"davit/build/export"
	"davit/build/op"
	"davit/build/plan"
	"davit/build/solve"
	"davit/build/tree"
	"davit/oci"
)

type vertex = solve.Vertex[*state]

// state is what a vertex makes: an image so far. It is never changed.
type state struct {
	image oci.Image
	id    oci.Digest // of image; empty for scratch
	plan  plan.State // for a stage FROM this one
}

func (s *state) layers() []oci.DiffID { return s.image.RootFS.DiffIDs }

// finish returns the image of a build that ends here. One without steps of its own is its base image.
func (s *state) finish() (oci.Image, oci.Digest, error) {
	if s.id != "" {
		return s.image, s.id, nil
	}
	id, err := export.ID(s.image)
	return s.image, id, err
}

// job is one run of Build.
type job struct {
	*Builder
	request  Request
	plan     *plan.Plan
	files    tree.Tree // the context without what is ignored
	progress Progress

	mu      sync.Mutex
	stages  map[*plan.Stage]*vertex
	images  map[plan.Ref]*vertex
	release *sync.Mutex // held while progress is told something
}

// emit tells progress, one event at a time.
func (j *job) emit(e Event) {
	if j.progress == nil {
		return
	}
	e.Time = j.Now()
	j.release.Lock()
	defer j.release.Unlock()
	j.progress(e)
}

func (j *job) warn() {
	for _, w := range j.plan.Warnings {
		text := w.Text
		if w.Rule != "" {
			text = w.Rule + ": " + text
		}
		j.emit(Event{Kind: BuildWarning, Line: w.Line, Data: []byte(text)})
	}
	if len(j.plan.Unused) > 0 {
		j.emit(Event{Kind: BuildWarning, Data: fmt.Appendf(nil, "One or more build-args %v were not consumed", j.plan.Unused)})
	}
}

// stage returns the vertex whose result is a stage's image.
func (j *job) stage(s *plan.Stage) *vertex {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stageLocked(s)
}

func (j *job) stageLocked(s *plan.Stage) *vertex {
	if v, ok := j.stages[s]; ok {
		return v
	}
	from := &fromOp{job: j, stage: s, step: &Step{Number: s.Number(), Total: j.plan.Total, Stage: s.Title(), Text: s.Text, Line: s.Line, Base: true}}
	base := &vertex{Op: from}
	if s.Base.Stage != nil {
		base.Inputs = []*vertex{j.stageLocked(s.Base.Stage)}
	}
	v := &vertex{Inputs: []*vertex{base}, Op: stepsOp{job: j, stage: s, from: from.step}}
	j.stages[s] = v
	return v
}

// source returns the vertex of a --from in the given line.
func (j *job) source(r plan.Ref, line int) *vertex {
	if r.Stage != nil {
		return j.stage(r.Stage)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	v, ok := j.images[r]
	if !ok {
		v = &vertex{Op: imageOp{job: j, ref: r, line: line}}
		j.images[r] = v
	}
	return v
}

// base gets an image, pulling it when it must.
func (j *job) base(ctx context.Context, r plan.Ref, step *Step) (*state, error) {
	platform, err := plan.ParsePlatform(r.Platform)
	if err != nil {
		return nil, err
	}
	base, err := j.Images.Base(ctx, BaseRequest{
		Name: r.Image, Platform: platform, Pull: j.request.Pull, Auth: j.request.Auth,
		Progress: func(message json.RawMessage) {
			if step != nil {
				j.emit(Event{Kind: StepPull, Step: step, Message: message})
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return &state{image: base.Config, id: base.ID, plan: plan.FromImage(base.Config)}, nil
}

// imageOp gets the image of a COPY --from.
type imageOp struct {
	job  *job
	ref  plan.Ref
	line int // of the first instruction that names it
}

// Do implements solve.Op.
func (o imageOp) Do(ctx context.Context, _ []*state) (*state, error) {
	base, err := o.job.base(ctx, o.ref, nil)
	if err != nil && ctx.Err() == nil {
		err = &StepError{File: o.job.request.Dockerfile, Line: o.line, Err: fmt.Errorf("invalid from flag value %s: %w", o.ref.Image, err)}
	}
	return base, err
}

// fromOp is a FROM.
type fromOp struct {
	job   *job
	stage *plan.Stage
	step  *Step
}

// Do implements solve.Op.
func (o *fromOp) Do(ctx context.Context, in []*state) (*state, error) {
	o.job.emit(Event{Kind: StepStarted, Step: o.step})
	base, err := o.base(ctx, in)
	if err != nil {
		return nil, o.job.failed(ctx, o.step, err)
	}
	o.job.emit(Event{Kind: StepDone, Step: o.step, Image: base.id})
	return base, nil
}

func (o *fromOp) base(ctx context.Context, in []*state) (*state, error) {
	switch {
	case len(in) > 0:
		return in[0], nil
	case o.stage.Base.IsZero():
		return &state{image: export.Scratch(o.stage.Platform), plan: plan.Scratch()}, nil
	}
	return o.job.base(ctx, o.stage.Base, o.step)
}

// failed reports a step's error, and gives it its place in the Dockerfile. Of a step that was canceled
// because another one failed there is nothing to say.
func (j *job) failed(ctx context.Context, step *Step, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := &StepError{File: j.request.Dockerfile, Line: step.Line, Err: err}
	var exit *op.ExitError
	if errors.As(err, &exit) {
		e.Code = exit.Code
	}
	j.emit(Event{Kind: StepDone, Step: step, Err: e})
	return e
}

// stepsOp becomes the steps of a stage when its base is known.
type stepsOp struct {
	job   *job
	stage *plan.Stage
	from  *Step
}

// Do implements solve.Op; a stage without steps is its base.
func (o stepsOp) Do(_ context.Context, in []*state) (*state, error) { return in[0], nil }

// Expand implements solve.Expander.
func (o stepsOp) Expand(_ context.Context, in []*state) (*vertex, error) {
	lowered, err := o.stage.Lower(in[0].plan)
	if err != nil {
		return nil, inFile(o.job.request.Dockerfile, err)
	}
	if o.stage == o.job.plan.Target && len(o.job.request.Labels) > 0 {
		lowered.Steps = append(lowered.Steps, o.labels(in[0], lowered))
	}
	last := &vertex{Op: given{in[0]}}
	number := o.stage.Number()
	for _, s := range lowered.Steps {
		step := &Step{Number: o.stage.Number(), Total: o.job.plan.Total, Stage: o.from.Stage, Text: s.Text, Line: s.Line, Trigger: s.Trigger}
		if !s.Trigger {
			number++
			step.Number = number
		}
		last = o.job.step(last, s, step)
	}
	if len(lowered.Steps) == 0 {
		return last, nil
	}
	return &vertex{Inputs: []*vertex{last}, Op: withPlan{lowered.State}}, nil
}

// labels is the step after all others that gives the result the labels of the request.
func (o stepsOp) labels(base *state, lowered plan.Lowered) plan.Step {
	before := plan.Step{Config: base.image.Config, Author: base.image.Author, Platform: o.stage.Platform}
	if n := len(lowered.Steps); n > 0 {
		before = lowered.Steps[n-1]
	}
	all := o.job.request.Labels
	text := "LABEL"
	for _, name := range slices.Sorted(maps.Keys(all)) {
		text += " " + name + "=" + all[name]
	}
	labels := maps.Clone(before.Config.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, all)
	before.Config.Labels = labels
	return plan.Step{
		Text: text, CreatedBy: text, Line: o.stage.Line, Platform: before.Platform, Config: before.Config, Author: before.Author,
	}
}

// given is a vertex whose result is known.
type given struct{ state *state }

// Do implements solve.Op.
func (g given) Do(context.Context, []*state) (*state, error) { return g.state, nil }

// withPlan adds what a stage FROM this one inherits.
type withPlan struct{ plan plan.State }

// Do implements solve.Op.
func (w withPlan) Do(_ context.Context, in []*state) (*state, error) {
	s := *in[0]
	s.plan = w.plan
	return &s, nil
}

// step returns the vertex of one step after another.
func (j *job) step(before *vertex, s plan.Step, step *Step) *vertex {
	v := &vertex{Inputs: []*vertex{before}}
	o := &stepOp{job: j, plan: s, step: step}
	switch work := s.Op.(type) {
	case *plan.Copy:
		if !work.From.IsZero() {
			v.Inputs = append(v.Inputs, j.source(work.From, s.Line))
		}
	case *plan.Run:
		for _, m := range work.Mounts {
			if !m.From.IsZero() {
				v.Inputs = append(v.Inputs, j.source(m.From, s.Line))
			}
		}
	}
	v.Op = o
	return v
}

// epoch returns SOURCE_DATE_EPOCH, for images that shall not tell when they were made.
func (j *job) epoch() (time.Time, bool) {
	seconds, err := strconv.ParseInt(j.request.Args["SOURCE_DATE_EPOCH"], 10, 64)
	return time.Unix(seconds, 0), err == nil
}

// globals reports the ARG instructions before the first FROM, which Parse has carried out.
func (j *job) globals() {
	for i, global := range j.plan.Globals {
		step := &Step{Number: i + 1, Total: j.plan.Total, Text: global.Text, Line: global.Line}
		j.emit(Event{Kind: StepStarted, Step: step})
		j.emit(Event{Kind: StepDone, Step: step})
	}
}
