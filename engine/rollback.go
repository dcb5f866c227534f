package engine

import (
	"context"

	"github.com/moby/moby/api/types/events"

	"davit/image"
	"davit/oci/errdefs"
	"davit/oci/ref"
)

// actionRollback is what an image event says when a tag went back; Docker has no such action.
const actionRollback events.Action = "rollback"

// TagLog returns where a tag has led to over time, the latest move first.
func (i *Images) TagLog(ctx context.Context, name string) (ref.Ref, []image.Move, error) {
	tag, err := parseTag(name)
	if err != nil {
		return ref.Ref{}, nil, err
	}
	moves, err := i.Options.Images.TagLog(ctx, tag)
	return tag, moves, err
}

// Rollback moves a tag back: to where "app:tag@{2}" says, or without such an end to the move before the
// present one.
func (i *Images) Rollback(ctx context.Context, name string) (ref.Ref, image.Move, error) {
	tag, n, ok := image.CutMove(name)
	if !ok {
		n = 1
		var err error
		if tag, err = parseTag(name); err != nil {
			return ref.Ref{}, image.Move{}, err
		}
	}
	to, err := i.Options.Images.Rollback(ctx, tag, n)
	if err != nil {
		return ref.Ref{}, image.Move{}, err
	}
	i.tellImage(actionRollback, string(to.ID), tag.Familiar())
	return tag, to, nil
}

// parseTag reads a name whose tag is "latest" by default and that has no digest.
func parseTag(name string) (ref.Ref, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return ref.Ref{}, err
	}
	if r.Digest != "" {
		return ref.Ref{}, errdefs.Invalid("%s is a digest, which never moves; name a tag", r.Familiar())
	}
	return r.WithDefaultTag(), nil
}
