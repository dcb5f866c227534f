package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/scrub"
)

// scrubCounts are what scrubs count.
type scrubCounts struct {
	runs, failures, blobs, bytes, damaged, unreadable, repaired atomic.Int64
	aside                                                       atomic.Int64 // now
}

func (c *scrubCounts) series() []series {
	return []series{
		{"davit_registry_scrubs_total", "counter", "Scrubs that ran to their end.", &c.runs},
		{"davit_registry_scrub_failures_total", "counter", "Scrubs that failed.", &c.failures},
		{"davit_registry_scrubbed_blobs_total", "counter", "Contents whose digest was verified.", &c.blobs},
		{"davit_registry_scrubbed_bytes_total", "counter", "Bytes that scrubs read.", &c.bytes},
		{"davit_registry_damaged_blobs_total", "counter", "Contents that did not match their digest, and were put aside.", &c.damaged},
		{"davit_registry_unreadable_blobs_total", "counter", "Contents that a scrub could not read.", &c.unreadable},
		{"davit_registry_repaired_blobs_total", "counter", "Contents that were put aside and pushed again.", &c.repaired},
		{"davit_registry_quarantined_blobs", "gauge", "Contents that are put aside, as of the last scrub.", &c.aside},
	}
}

// Scrub verifies all content at a rate of bytes a second (0: any), and puts aside what is damaged. It logs
// each with the repositories that lack it now.
func (s *Server) Scrub(ctx context.Context, rate int64) (scrub.Report, error) {
	counts := &s.metrics.scrub
	report, err := scrub.Run(ctx, s.store, rate, func(bytes int64) {
		counts.blobs.Add(1)
		counts.bytes.Add(bytes)
	})
	for _, damage := range report.Damaged {
		s.noteDamage(ctx, damage)
	}
	for _, one := range report.Unreadable {
		counts.unreadable.Add(1)
		s.log.Error("blob cannot be read", "digest", one.Digest, "error", one.Err)
	}
	counts.repaired.Add(int64(len(report.Repaired)))
	if err != nil {
		counts.failures.Add(1)
		return report, err
	}
	counts.runs.Add(1)
	aside, err := scrub.Aside(ctx, s.store)
	counts.aside.Store(int64(len(aside)))
	return report, err
}

func (s *Server) noteDamage(ctx context.Context, damage scrub.Damage) {
	s.metrics.scrub.damaged.Add(1)
	holders, err := s.Holders(ctx, damage.Digest)
	s.log.Error("blob is damaged and was put aside: push it again", "digest", damage.Digest, "found", damage.Found,
		"size", damage.Size, "repositories", strings.Join(holders, " "), "error", err)
}

// Holders names the repositories that have a digest as a blob or a manifest.
func (s *Server) Holders(ctx context.Context, d oci.Digest) ([]string, error) {
	var holders []string
	err := s.eachRepository(ctx, func(ctx context.Context, repo repository) error {
		for _, record := range []string{repo.blobKey(d), repo.manifestKey(d)} {
			_, err := s.store.RecordTime(ctx, record)
			if err == nil {
				holders = append(holders, repo.name)
				return nil
			}
			if !errors.Is(err, errdefs.ErrNotFound) {
				return err
			}
		}
		return nil
	})
	return holders, err
}

// damagedManifest puts a manifest aside that was found damaged when it was to be served.
func (s *Server) damagedManifest(ctx context.Context, d oci.Digest) error {
	damage, aside, err := scrub.SetAside(context.WithoutCancel(ctx), s.store, d)
	if aside {
		s.noteDamage(ctx, damage)
	}
	return errors.Join(errdefs.NotFound("manifest %s was damaged and is put aside: push it again", d), err)
}

// scrubEvery scrubs now and then until ctx ends; one process of those over a store does it.
func (s *Server) scrubEvery(ctx context.Context, every time.Duration, rate int64) {
	s.inTurns(ctx, "scrub", every, func() {
		report, err := s.Scrub(ctx, rate)
		if err != nil {
			s.log.Error("scrub failed", "error", err)
			return
		}
		s.log.Info("scrubbed", "blobs", report.Blobs, "bytes", report.Bytes, "damaged", len(report.Damaged),
			"unreadable", len(report.Unreadable), "repaired", len(report.Repaired))
	})
}

// ScrubRoot is "davit registry scrub": one run over a store, beside registries that may be serving it. It
// is an error when something is damaged.
func ScrubRoot(ctx context.Context, root string, rate int64, out io.Writer, log *slog.Logger) error {
	store, err := openStore(ctx, root)
	if err != nil {
		return err
	}
	s := New(store, log, Options{NoPages: true})
	defer s.Close()
	report, err := scrub.Run(ctx, store, rate, nil)
	for _, damage := range report.Damaged {
		holders, err := s.Holders(ctx, damage.Digest)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "damaged %s: its %d bytes have digest %s; put aside, push it again: %s\n", damage.Digest, damage.Size, damage.Found, strings.Join(holders, " "))
	}
	for _, one := range report.Unreadable {
		fmt.Fprintf(out, "unreadable %s: %v\n", one.Digest, one.Err)
	}
	for _, damage := range report.Repaired {
		fmt.Fprintf(out, "repaired %s\n", damage.Digest)
	}
	fmt.Fprintf(out, "%d blobs, %d bytes: %d damaged, %d unreadable, %d repaired\n", report.Blobs, report.Bytes, len(report.Damaged), len(report.Unreadable), len(report.Repaired))
	if err == nil && len(report.Damaged)+len(report.Unreadable) > 0 {
		err = errdefs.As(errdefs.ErrDataLoss, fmt.Errorf("%d blobs are not as they were pushed", len(report.Damaged)+len(report.Unreadable)))
	}
	return err
}
