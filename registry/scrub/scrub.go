// Package scrub reads all content of a registry's store and compares it with its digests. What does not
// match is put aside, so that nobody is served it: clients are told that the blob is unknown, and the next
// push of the same digest brings it back. The damaged bytes stay, as the content of the digest that they
// do have, until the blob is whole again:
//
//	quarantine/<alg>-<hex>    Damage
package scrub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// Damage is a blob whose bytes do not match its digest.
type Damage struct {
	Digest oci.Digest `json:"digest"`
	Found  oci.Digest `json:"found"` // the digest that the bytes have, under which they are kept
	Size   int64      `json:"size"`  // of the bytes
	Time   time.Time  `json:"time"`
}

// Unreadable is a blob that could not be read to its end: a bad disk, or a store that does not answer. It
// stays where it is.
type Unreadable struct {
	Digest oci.Digest
	Err    error
}

// Report is what one scrub found.
type Report struct {
	Blobs      int
	Bytes      int64
	Damaged    []Damage     // put aside in this run
	Unreadable []Unreadable // left alone
	Repaired   []Damage     // were put aside by an earlier run, and are whole again
}

// Run reads everything, at most rate bytes a second (0: as fast as it can). progress, when not nil, is
// told of each blob that was read. Requests go on meanwhile, here and in other processes.
func Run(ctx context.Context, store storage.Store, rate int64, progress func(bytes int64)) (Report, error) {
	r := run{store: store, pace: pace{rate: rate, began: time.Now()}}
	err := store.WalkBlobs(ctx, func(d oci.Digest, _ int64, _ time.Time) error {
		n, err := r.blob(ctx, d)
		if progress != nil {
			progress(n)
		}
		return err
	})
	if err == nil {
		err = r.repaired(ctx)
	}
	if err != nil {
		return r.Report, fmt.Errorf("scrub: %w", err)
	}
	return r.Report, nil
}

// run is one scrub under way.
type run struct {
	Report
	store storage.Store
	pace  pace
}

func (r *run) blob(ctx context.Context, d oci.Digest) (int64, error) {
	found, n, err := sum(ctx, r.store, d, &r.pace)
	switch {
	case ctx.Err() != nil:
		return n, ctx.Err()
	case errors.Is(err, errdefs.ErrNotFound):
		return 0, nil // deleted since the walk saw it
	case err != nil:
		r.Unreadable = append(r.Unreadable, Unreadable{d, err})
		return n, nil
	}
	r.Blobs, r.Bytes = r.Blobs+1, r.Bytes+n
	if found == d {
		return n, nil
	}
	damage, aside, err := SetAside(ctx, r.store, d)
	if aside {
		r.Damaged = append(r.Damaged, damage)
	}
	return n, err
}

// repaired forgets what was put aside and has been pushed again.
func (r *run) repaired(ctx context.Context) error {
	all, err := Aside(ctx, r.store)
	if err != nil {
		return err
	}
	for _, damage := range all {
		_, err := r.store.StatBlob(ctx, damage.Digest)
		if err == nil {
			err = r.store.DeleteRecord(ctx, key(damage.Digest))
			r.Repaired = append(r.Repaired, damage)
		}
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	return nil
}

// sum reads a blob and returns the digest of its bytes.
func sum(ctx context.Context, store storage.Store, d oci.Digest, p *pace) (found oci.Digest, size int64, err error) {
	blob, err := store.OpenBlob(ctx, d)
	if err != nil {
		return "", 0, err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	h := d.Hash()
	buffer := make([]byte, 256<<10)
	for {
		n, err := blob.Read(buffer)
		h.Write(buffer[:n])
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return oci.SumDigest(d.Algorithm(), h), size, nil
		}
		if err == nil {
			err = p.wait(ctx, int64(n))
		}
		if err != nil {
			return "", size, err
		}
	}
}

// pace holds reading to a rate.
type pace struct {
	rate  int64
	began time.Time
	done  int64
}

func (p *pace) wait(ctx context.Context, n int64) error {
	p.done += n
	if p.rate <= 0 {
		return ctx.Err()
	}
	due := p.began.Add(time.Duration(float64(p.done) / float64(p.rate) * float64(time.Second)))
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func key(d oci.Digest) string { return "quarantine/" + d.Algorithm() + "-" + d.Hex() }

// SetAside takes a blob whose bytes do not match out of what is served, unless a push has replaced it. It
// reads the blob again after it announced the removal, and removes by that announcement; so a push that
// comes meanwhile keeps what it pushed.
func SetAside(ctx context.Context, store storage.Store, d oci.Digest) (damage Damage, aside bool, err error) {
	const attempts = 10 // others want the blob: then it has to be looked at again
	for range attempts {
		sentence, err := store.CondemnBlob(ctx, d)
		if err != nil {
			return damage, false, gone(err)
		}
		found, size, err := sum(ctx, store, d, &pace{})
		if err != nil {
			return damage, false, gone(err)
		}
		if found == d {
			return damage, false, gone(store.KeepBlob(ctx, d))
		}
		damage = Damage{d, found, size, time.Now().UTC()}
		err = keepBytes(ctx, store, damage)
		if errors.Is(err, errdefs.ErrInvalid) || errors.Is(err, errdefs.ErrNotFound) {
			continue // other bytes than a moment ago: pushed, or gone
		}
		if err != nil {
			return damage, false, fmt.Errorf("keep the bytes of damaged blob %s: %w", d, err)
		}
		if err = store.RemoveBlob(ctx, d, sentence); !errors.Is(err, errdefs.ErrConflict) {
			return damage, err == nil, gone(err)
		}
	}
	return damage, false, errdefs.Conflict("blob %s is damaged, and in too much use to be put aside", d)
}

// gone is no error for a blob that somebody else has removed.
func gone(err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// keepBytes writes the record first: the collector keeps what the record names.
func keepBytes(ctx context.Context, store storage.Store, damage Damage) (err error) {
	value, err := json.Marshal(damage)
	if err != nil {
		return err
	}
	if err := store.PutRecord(ctx, key(damage.Digest), value); err != nil {
		return err
	}
	blob, err := store.OpenBlob(ctx, damage.Digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	id, err := store.CreateUpload(ctx, damage.Found.Algorithm())
	if err != nil {
		return err
	}
	if _, err := store.AppendUpload(ctx, id, 0, blob); err != nil {
		return errors.Join(err, store.CancelUpload(ctx, id))
	}
	_, err = store.CommitUpload(ctx, id, damage.Found)
	return err
}

// Aside lists what was put aside and is not known to be whole again.
func Aside(ctx context.Context, store storage.Records) ([]Damage, error) {
	names, err := store.ListRecords(ctx, "quarantine")
	if err != nil {
		return nil, err
	}
	var all []Damage
	for _, name := range names {
		d, err := oci.ParseDigest(strings.Replace(name, "-", ":", 1))
		if err != nil {
			return nil, fmt.Errorf("read quarantine: %w", err)
		}
		value, err := store.GetRecord(ctx, key(d))
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		var damage Damage
		if err == nil {
			err = json.Unmarshal(value, &damage)
		}
		if err != nil {
			return nil, fmt.Errorf("read quarantine: %w", err)
		}
		all = append(all, damage)
	}
	return all, nil
}
