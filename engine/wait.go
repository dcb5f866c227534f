package engine

import (
	"context"

	wire "github.com/moby/moby/api/types/container"

	"davit/engine/container"
	"davit/oci/errdefs"
)

// Wait returns a function that waits until a container does not run, has ended once more, or is
// removed, and returns its exit code. What the function waits for is counted from this call on.
func (c *Containers) Wait(name string, condition wire.WaitCondition) (func(context.Context) (wire.WaitResponse, error), error) {
	a, err := c.roster.find(name)
	if err != nil {
		return nil, err
	}
	since := a.view().exits
	var over func(*view) bool
	switch condition {
	case "", wire.WaitConditionNotRunning:
		over = func(v *view) bool {
			return v.exits > since || (!up(v.State.Status) && v.State.Status != container.Restarting)
		}
	case wire.WaitConditionNextExit:
		over = func(v *view) bool { return v.exits > since || v.State.Status == container.Removed }
	case wire.WaitConditionRemoved:
		over = func(v *view) bool {
			return v.State.Status == container.Removed || v.State.Status == container.Dead
		}
	default:
		return nil, errdefs.Invalid("invalid condition: %q", string(condition))
	}
	return func(ctx context.Context) (wire.WaitResponse, error) {
		v, err := a.await(ctx, over)
		if err != nil {
			return wire.WaitResponse{}, err
		}
		w := wire.WaitResponse{StatusCode: int64(v.State.ExitCode)}
		if v.State.Status == container.Dead {
			w.Error = &wire.WaitExitError{Message: v.State.Error}
		}
		return w, nil
	}, nil
}

// up says whether a container's program runs or is about to.
func up(s container.Status) bool { return s.Alive() || s == container.Starting }
