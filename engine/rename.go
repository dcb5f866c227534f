package engine

import (
	"context"
	"strings"

	"github.com/moby/moby/api/types/events"

	"davit/oci/errdefs"
)

// Rename gives a container another name.
func (c *Containers) Rename(ctx context.Context, name, newName string) error {
	a, err := c.roster.find(name)
	if err != nil {
		return err
	}
	if newName == "" {
		return errdefs.Invalid("Neither old nor new names may be empty")
	}
	if !validName.MatchString(newName) {
		return errdefs.Invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", newName)
	}
	newName = strings.TrimPrefix(newName, "/")
	end, err := a.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	r := a.record().Clone()
	old := r.Name
	if old == newName {
		return errdefs.Invalid("Renaming a container with the same name as its current name")
	}
	if err := c.roster.reserve(newName, a.id); err != nil {
		return err
	}
	r.Name = newName
	if err := c.journal.save(r); err != nil {
		c.roster.release(newName, a.id)
		return err
	}
	a.publish(r)
	c.roster.release(old, a.id)
	if err := c.Options.Networks.Rename(ctx, a.id, newName); err != nil {
		c.Log.Warn("rename container in its networks", "container", a.id, "error", err)
	}
	c.tell(r, events.ActionRename, map[string]string{"oldName": "/" + old})
	return nil
}
