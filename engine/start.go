package engine

import "context"

// Start starts a container. Of one that runs it returns errdefs.ErrNotModified.
func (c *Containers) Start(ctx context.Context, name string) error {
	a, err := c.roster.find(name)
	if err != nil {
		return err
	}
	// A client that goes away does not leave a half-made container behind.
	ctx = context.WithoutCancel(ctx)
	end, err := a.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	a.stopTimers()
	return c.life.start(ctx, a)
}
