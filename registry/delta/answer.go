package delta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/chunk"
	"davit/store/delta"
	"davit/store/layer"
)

// Answer is a delta that is ready to be sent.
type Answer struct {
	service *Service
	want    oci.Digest
	list    chunk.List
	ops     []delta.Op
	bases   []oci.DiffID
	packed  map[chunk.Sum][]byte // the chunks to send, when all of them are in packs
}

// Question is what somebody asks who wants a layer of a repository and has others of it.
type Question struct {
	Repository string
	Want       oci.Digest
	Have       []oci.Digest
	Most       int        // percentage of the layer up to which a delta is worth it; 0: DefaultMost
	Manifest   oci.Digest // of the image that the layer is wanted for; noted when its lists are missing; may be empty
}

// DefaultMost suits a connection that is as fast as decompression: more, and the plain layer is as quick.
const DefaultMost = 12

// Answer finds out how to send a layer. It fails with errdefs.ErrNotFound when there is no delta, or none
// that is worth it; with ErrUnavailable when the registry is busy. The plain layer is always there.
func (s *Service) Answer(ctx context.Context, q Question) (*Answer, error) {
	name, want := q.Repository, q.Want
	rec, err := s.layer(ctx, name, want)
	var list chunk.List
	if err == nil {
		list, err = s.list(ctx, rec)
	}
	if errors.Is(err, errdefs.ErrNotFound) && !rec.Unfit && q.Manifest != "" {
		s.Note(name, q.Manifest)
	}
	if err != nil {
		return nil, fmt.Errorf("chunk list of layer %s: %w", want, err)
	}
	bases, err := s.bases(ctx, name, q.Have)
	if err != nil {
		return nil, fmt.Errorf("chunk lists of the client's layers: %w", err)
	}
	a := &Answer{service: s, want: want, list: list}
	a.ops, a.bases = delta.Used(delta.Plan(list, bases), bases)
	if sent := delta.Sent(a.ops); 100*sent > list.Bytes()*int64(cmp.Or(q.Most, DefaultMost)) {
		return nil, errdefs.NotFound("%d of %d bytes differ: a delta is not worth it", sent, list.Bytes())
	}
	a.packed, err = s.fromPacks(ctx, name, rec, a.wanted())
	return a, err
}

// wanted is the set of chunks to send.
func (a *Answer) wanted() map[chunk.Sum]bool {
	wanted := map[chunk.Sum]bool{}
	for _, op := range a.ops {
		if op.Base < 0 {
			for _, c := range a.list[op.First : op.First+op.Chunks] {
				wanted[c.Sum] = true
			}
		}
	}
	return wanted
}

// fromPacks looks for chunks in a layer's pack and in those of the layers before it. It returns nil
// unless all are found.
func (s *Service) fromPacks(ctx context.Context, name string, rec layerRecord, wanted map[chunk.Sum]bool) (map[chunk.Sum][]byte, error) {
	found := make(map[chunk.Sum][]byte, len(wanted))
	before := rec.Before
	for len(found) < len(wanted) {
		if rec.Pack != "" {
			err := s.unpack(ctx, rec.Pack, wanted, found)
			if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				return nil, fmt.Errorf("read pack %s: %w", rec.Pack, err)
			}
		}
		if len(found) == len(wanted) {
			break
		}
		if len(before) == 0 {
			return nil, nil
		}
		var err error
		if rec, err = s.layer(ctx, name, before[0]); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return nil, err
		}
		before = before[1:]
	}
	return found, nil
}

// Send writes the delta. A layer whose chunks are in no pack is decompressed for it.
func (a *Answer) Send(ctx context.Context, w io.Writer) (err error) {
	if a.packed != nil {
		return delta.Write(w, a.list, a.ops, a.bases, func(n int) ([]byte, error) { return a.packed[a.list[n].Sum], nil })
	}
	blob, err := a.service.store.OpenBlob(ctx, a.want)
	if err != nil {
		return err
	}
	archive, _, err := layer.Decompress(blob)
	if err != nil {
		return errors.Join(err, blob.Close())
	}
	defer func() { err = errors.Join(err, archive.Close(), blob.Close()) }()
	return delta.Write(w, a.list, a.ops, a.bases, delta.FromArchive(archive, a.list))
}

// Begin takes one of the few places for those who make the registry decompress a layer, until end is
// called. When all are taken it fails with errdefs.ErrUnavailable: the plain layer is sooner there.
func (a *Answer) Begin() (end func(), err error) {
	if a.packed != nil {
		return func() {}, nil
	}
	select {
	case a.service.busy <- struct{}{}:
		return func() { <-a.service.busy }, nil
	default:
		return nil, errdefs.Unavailable("the registry makes other deltas now")
	}
}
