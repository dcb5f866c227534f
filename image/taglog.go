package image

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/store/metadata"
)

// Cause is what moved a tag.
type Cause string

// The causes.
const (
	ByPull     Cause = "pull"
	ByBuild    Cause = "build"
	ByCommit   Cause = "commit"
	ByImport   Cause = "import"
	ByLoad     Cause = "load"
	ByTag      Cause = "tag"
	ByRollback Cause = "rollback"
	ByDeletion Cause = "deletion"
	ByUnknown  Cause = "unknown" // before the log was kept
)

// Move is one entry of a tag's log: from then on the tag named an image, or nothing. A user writes the
// n-th of them, the latest being number 0, as "app@{n}" or "app:tag@{n}" wherever an image is asked for.
//
// The log keeps no image: one that its tag has left is dangling, as in Docker, and stays until it is
// pruned or removed.
type Move struct {
	ID     oci.Digest     `json:"id,omitempty"`     // empty: the tag was removed
	Target oci.Descriptor `json:"target,omitzero"`  // as in nameRecord
	Time   time.Time      `json:"time,omitzero"`    // zero: not known
	By     Cause          `json:"by"`               //
	Pulled string         `json:"pulled,omitempty"` // the reference to pull it by again, if it came from a registry
	Here   bool           `json:"-"`                // the image is here
}

// tagLog is what the table "taglog" keeps under a full reference with a tag, the latest move first.
type tagLog struct {
	Moves []Move `json:"moves"`
}

// loggedMoves is how long a log grows.
const loggedMoves = 100

func tagLogs() metadata.Table[tagLog] { return metadata.NewTable[tagLog]("taglog") }

// logMove notes in a tag's log where it goes; a move to where it is already is none. It comes before the
// move itself, in the same transaction.
func (s *Store) logMove(tx *metadata.Tx, key string, to nameRecord, by Cause) error {
	if byDigest(key) {
		return nil
	}
	moves, err := readLog(tx, key)
	if err != nil {
		return err
	}
	if len(moves) > 0 && moves[0].ID == to.ID {
		return nil
	}
	m := Move{ID: to.ID, Target: to.Target, Time: s.o.Now().UTC(), By: by}
	if by == ByPull {
		m.Pulled = repository(key) + "@" + string(to.Target.Digest)
	}
	moves = append([]Move{m}, moves[:min(len(moves), loggedMoves-1)]...)
	if err := tagLogs().Put(tx, key, tagLog{moves}); err != nil {
		return fmt.Errorf("log move of tag %s: %w", key, err)
	}
	return nil
}

// readLog returns a tag's moves. A tag that is older than its log has moved once.
func readLog(tx *metadata.Tx, key string) ([]Move, error) {
	rec, err := tagLogs().Get(tx, key)
	if err == nil {
		return rec.Moves, nil
	}
	if !errors.Is(err, errdefs.ErrNotFound) {
		return nil, fmt.Errorf("read log of tag %s: %w", key, err)
	}
	named, err := names().Get(tx, key)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up name %s: %w", key, err)
	}
	return []Move{{ID: named.ID, Target: named.Target, By: ByUnknown}}, nil
}

// TagLog returns the log of a tag, the latest move first.
func (s *Store) TagLog(_ context.Context, tag ref.Ref) ([]Move, error) {
	var moves []Move
	err := s.o.DB.View(func(tx *metadata.Tx) (err error) {
		if moves, err = readLog(tx, nameKey(tag)); err != nil {
			return err
		}
		for i := range moves {
			_, err := images().Get(tx, string(moves[i].ID))
			moves[i].Here = err == nil
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(moves) == 0 {
		return nil, noLog(tag)
	}
	return moves, nil
}

func noLog(tag ref.Ref) error {
	return errdefs.NotFound("no image has ever been tagged %s here", tag.WithDefaultTag().Familiar())
}

// Rollback moves a tag back to what it named n moves ago, which is a move of its own: done twice with 1,
// the tag is where it was.
func (s *Store) Rollback(ctx context.Context, tag ref.Ref, n int) (Move, error) {
	tag = tag.WithDefaultTag()
	if n < 1 {
		return Move{}, errdefs.Invalid("%s@{0} is where the tag is now: say @{1} or more", tag.Familiar())
	}
	var to Move
	err := s.o.DB.Update(func(tx *metadata.Tx) (err error) {
		if to, err = pastMove(tx, tag, n); err != nil {
			return err
		}
		return s.setName(tx, tag, nameRecord{ID: to.ID, Target: to.Target}, ByRollback)
	})
	if err != nil {
		return Move{}, err
	}
	return to, s.writeIndex(ctx)
}

// CutMove splits "app:tag@{2}" into the tag and 2. The tag is "latest" by default.
func CutMove(name string) (tag ref.Ref, n int, ok bool) {
	base, number, found := strings.Cut(name, "@{")
	number, closed := strings.CutSuffix(number, "}")
	if !found || !closed {
		return ref.Ref{}, 0, false
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 {
		return ref.Ref{}, 0, false
	}
	tag, err = ref.Parse(base)
	if err != nil || tag.Digest != "" {
		return ref.Ref{}, 0, false
	}
	return tag.WithDefaultTag(), n, true
}

// pastMove returns the n-th move of a tag, to an image that is here. Its errors say what the user can do;
// none is ErrNotFound, on which clients would pull.
func pastMove(tx *metadata.Tx, tag ref.Ref, n int) (Move, error) {
	moves, err := readLog(tx, nameKey(tag))
	if err != nil {
		return Move{}, err
	}
	name := fmt.Sprintf("%s@{%d}", tag.Familiar(), n)
	switch {
	case len(moves) == 0:
		return Move{}, errdefs.Invalid("%s: %w", name, noLog(tag))
	case n >= len(moves):
		return Move{}, errdefs.Invalid("%s: the log of %s goes back to @{%d} only; see: davit tag --history %s", name, tag.Familiar(), len(moves)-1, tag.Familiar())
	case moves[n].ID == "":
		return Move{}, errdefs.Invalid("%s: the tag was removed then; see: davit tag --history %s", name, tag.Familiar())
	}
	if _, err := images().Get(tx, string(moves[n].ID)); err != nil {
		return Move{}, gone(name, moves[n])
	}
	return moves[n], nil
}

// gone says that a past image was removed, and how to get it again.
func gone(name string, m Move) error {
	advice := "it was made here, and there is no registry to pull it from"
	if r, err := ref.Parse(m.Pulled); err == nil {
		advice = "get it again with: davit pull " + r.Familiar()
	}
	return errdefs.Invalid("%s was image %s, which has been removed here; %s", name, m.ID.Short(), advice)
}
