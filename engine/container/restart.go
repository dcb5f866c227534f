package container

import (
	"time"

	"github.com/moby/moby/api/types/container"

	"davit/oci/errdefs"
)

// The wait before a restart doubles from the first to the longest and begins anew once a program has
// run for steady; the same figures as Docker's.
const (
	firstBackoff   = 100 * time.Millisecond
	longestBackoff = time.Minute
	steady         = 10 * time.Second
)

// Decision is what follows the end of a container's program.
type Decision struct {
	Restart bool
	After   time.Duration // wait so long before
}

// Decide applies a restart policy to a state whose program has just ended with s.ExitCode.
func Decide(p container.RestartPolicy, s State) Decision {
	if s.Stopped || !wantsRestart(p, s) {
		return Decision{}
	}
	ran := s.FinishedAt.Sub(s.StartedAt)
	after := s.Backoff * 2
	if ran >= steady || s.Backoff == 0 {
		after = firstBackoff
	}
	return Decision{Restart: true, After: min(after, longestBackoff)}
}

func wantsRestart(p container.RestartPolicy, s State) bool {
	switch p.Name {
	case container.RestartPolicyAlways, container.RestartPolicyUnlessStopped:
		return true
	case container.RestartPolicyOnFailure:
		return s.ExitCode != 0 && (p.MaximumRetryCount == 0 || s.RestartCount < p.MaximumRetryCount)
	}
	return false
}

// StartAtBoot says whether the engine starts a container that it finds without its task: the host was
// rebooted, or the monitor is gone.
func StartAtBoot(p container.RestartPolicy, s State) bool {
	wasUp := s.Status.Alive() || s.Status == Restarting || s.Status == Starting
	switch p.Name {
	case container.RestartPolicyAlways:
		return wasUp || (s.Status == Exited && !s.StartedAt.IsZero())
	case container.RestartPolicyUnlessStopped:
		return wasUp || (s.Status == Exited && !s.Stopped && !s.StartedAt.IsZero())
	case container.RestartPolicyOnFailure:
		return wasUp && (p.MaximumRetryCount == 0 || s.RestartCount < p.MaximumRetryCount)
	}
	return false
}

// ValidateRestart checks a restart policy together with the removal at the end.
func ValidateRestart(p container.RestartPolicy, autoRemove bool) error {
	if err := container.ValidateRestartPolicy(p); err != nil {
		return errdefs.As(errdefs.ErrInvalid, err)
	}
	if autoRemove && !p.IsNone() {
		return errdefs.Invalid("can't create 'AutoRemove' container with restart policy")
	}
	return nil
}
