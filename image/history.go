package image

import (
	"context"
	"slices"
	"time"

	"davit/oci"
)

// missingID stands for the ID of a step whose image is not in this store.
const missingID = "<missing>"

// History returns the steps of an image, newest first. Layers that the configuration's history does
// not speak of are listed without description.
func (s *Store) History(ctx context.Context, name string) ([]HistoryEntry, error) {
	img, err := s.Resolve(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	entries := s.steps(img)
	slices.Reverse(entries)
	s.identify(ctx, img, entries)
	return entries, nil
}

// steps lists the history, oldest first, with each step's size.
func (s *Store) steps(img Image) []HistoryEntry {
	var entries []HistoryEntry
	layers := 0
	for _, h := range img.Config.History {
		entry := HistoryEntry{ID: missingID, CreatedBy: h.CreatedBy, Comment: h.Comment, Created: timeOf(h.Created)}
		if !h.EmptyLayer && layers < len(img.Layers) {
			layers++
			entry.Size = s.layerSize(img.Layers[:layers])
		}
		entries = append(entries, entry)
	}
	for layers < len(img.Layers) {
		layers++
		entries = append(entries, HistoryEntry{ID: missingID, Created: img.Created(), Size: s.layerSize(img.Layers[:layers])})
	}
	return entries
}

// identify fills in the IDs of the image and of those parents that are here, and their names.
func (s *Store) identify(ctx context.Context, img Image, newestFirst []HistoryEntry) {
	for i := range newestFirst {
		newestFirst[i].ID = string(img.ID)
		newestFirst[i].Tags = img.RepoTags
		if img.Parent == "" {
			return
		}
		parent, err := s.Get(ctx, img.Parent)
		if err != nil {
			return // removed since: the rest is missing
		}
		img = parent
	}
}

// layerSize returns the bytes of the topmost layer; of one that is not unpacked, 0.
func (s *Store) layerSize(layers []oci.DiffID) int64 {
	n, err := s.o.Layers.Size(layers...)
	if err != nil {
		return 0
	}
	return n
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
