package bucket

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"davit/oci/errdefs"
)

// ExpireUploads implements storage.Uploads. It also clears away what processes that were killed left
// behind: objects of data that nothing leads to, content that is dead, cells that are empty. Bytes lie
// unreferenced for minutes at most while somebody works on them, so the time should be further back.
func (s *Store) ExpireUploads(ctx context.Context, before time.Time) error {
	for _, step := range []func(context.Context, time.Time) error{s.expireUploads, s.expireData, s.expireCells} {
		if err := step(ctx, before); err != nil {
			return fmt.Errorf("expire uploads: %w", err)
		}
	}
	return nil
}

func (s *Store) expireUploads(ctx context.Context, before time.Time) error {
	return s.list(ctx, "uploads/", true, func(o listed) error {
		id := strings.TrimPrefix(o.key, "uploads/")
		if !o.changed.Before(before) {
			return nil
		}
		if o.size < cellHead {
			return s.deleteObject(ctx, o.key)
		}
		u, version, err := s.upload(ctx, id)
		if err == nil && u.Commit != "" {
			// Its object may be content already; if not, it is data that nothing leads to.
			if err = s.remove(ctx, o.key, version); err == nil {
				err = s.deleteObject(ctx, o.key)
			}
		} else if err == nil {
			err = s.discard(ctx, id, u, version)
		}
		if errors.Is(err, errdefs.ErrConflict) || errors.Is(err, errdefs.ErrNotFound) {
			return nil // somebody goes on with it
		}
		return err
	})
}

// expireData deletes old objects that neither an upload nor content has. They are listed first: an object
// goes from the one to the other and never back, so who reads uploads and then content misses none.
func (s *Store) expireData(ctx context.Context, before time.Time) error {
	orphans := map[string]bool{}
	err := s.list(ctx, "data/", true, func(o listed) error {
		if o.changed.Before(before) {
			orphans[o.key] = true
		}
		return nil
	})
	if err != nil || len(orphans) == 0 {
		return err
	}
	err = s.list(ctx, "uploads/", true, func(o listed) error {
		id := strings.TrimPrefix(o.key, "uploads/")
		delete(orphans, assembled(id))
		if o.size < cellHead {
			return nil
		}
		u, _, err := s.upload(ctx, id)
		delete(orphans, u.Tail.Object)
		if errors.Is(err, errdefs.ErrNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	err = s.walk(ctx, func(b found) error {
		delete(orphans, b.content.Object)
		if b.content.Dead {
			return s.finishKill(ctx, b.digest, b.version, b.content)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for key := range orphans {
		if err := s.deleteObject(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// expireCells buries old empty cells.
func (s *Store) expireCells(ctx context.Context, before time.Time) error {
	bury := func(o listed) error {
		if o.size >= cellHead || !o.changed.Before(before) {
			return nil
		}
		return s.bury(ctx, o.key, o.tag)
	}
	if err := s.list(ctx, "content/", true, bury); err != nil {
		return err
	}
	return s.list(ctx, "records/", true, bury)
}
