package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"davit/engine/container"
	"davit/store/metadata"
)

// journal keeps records over restarts of the engine. Those of containers that are removed when they
// end lie in files of the run-time directory, written without fsync and gone at reboot; all others are
// rows of the database:
//
//	containers/<id>           in the database: Record
//	<run>/containers/<id>.json   Record
//
// Writers of rows share transactions: while one is being synced, the next collects.
type journal struct {
	db    *metadata.DB
	table metadata.Table[container.Record]
	run   string
	log   *slog.Logger

	mu      sync.Mutex
	pending map[string]change
	batch   *batch
	wake    chan struct{} // has room for one: something is pending
	quit    chan struct{}
	done    chan struct{}
}

// change is what becomes of one row.
type change struct {
	record *container.Record // nil: delete
	later  bool              // nobody waits for it: when it fails, it goes into the next transaction
}

// batch is one transaction to come.
type batch struct {
	done chan struct{}
	err  error // set before done is closed
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

func openJournal(db *metadata.DB, run string, log *slog.Logger) (*journal, error) {
	j := &journal{
		db: db, table: metadata.NewTable[container.Record]("containers"),
		run: filepath.Join(run, "containers"), log: log,
		pending: map[string]change{}, batch: newBatch(),
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	if err := os.MkdirAll(j.run, 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	go j.write()
	return j, nil
}

// close writes what is pending and ends.
func (j *journal) close() {
	close(j.quit)
	<-j.done
}

// save makes a record durable, as far as it is to be, before it returns.
func (j *journal) save(r *container.Record) error {
	if r.AutoRemove() {
		return j.saveFile(r)
	}
	b := j.enqueue(r.ID, change{record: r})
	<-b.done
	return b.err
}

// saveBoth is save for two records that belong together: after a crash both are as before or both as
// now. (Of two in files, the first may be alone.)
func (j *journal) saveBoth(first, second *container.Record) error {
	if first.AutoRemove() || second.AutoRemove() {
		if err := j.save(first); err != nil {
			return err
		}
		return j.save(second)
	}
	j.mu.Lock()
	j.pending[first.ID], j.pending[second.ID] = change{record: first}, change{record: second}
	b := j.soon()
	j.mu.Unlock()
	<-b.done
	return b.err
}

// saveLater is save that does not wait; a failure is logged, and made good with the next record.
func (j *journal) saveLater(r *container.Record) {
	if !r.AutoRemove() {
		j.enqueue(r.ID, change{record: r, later: true})
		return
	}
	if err := j.saveFile(r); err != nil {
		j.log.Error("save container", "container", r.ID, "error", err)
	}
}

// forget removes a record.
func (j *journal) forget(r *container.Record) error {
	if r.AutoRemove() {
		err := os.Remove(j.file(r.ID))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	b := j.enqueue(r.ID, change{})
	<-b.done
	return b.err
}

func (j *journal) enqueue(id string, c change) *batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pending[id] = c
	return j.soon()
}

// soon has what is pending written, and returns the batch it is in; the caller holds the lock.
func (j *journal) soon() *batch {
	select {
	case j.wake <- struct{}{}:
	default:
	}
	return j.batch
}

// write commits batches until the journal is closed.
func (j *journal) write() {
	defer close(j.done)
	for {
		select {
		case <-j.wake:
			j.commit()
		case <-j.quit:
			j.commit()
			return
		}
	}
}

func (j *journal) commit() {
	j.mu.Lock()
	pending, b := j.pending, j.batch
	j.pending, j.batch = map[string]change{}, newBatch()
	j.mu.Unlock()
	if len(pending) > 0 {
		b.err = j.db.Update(func(tx *metadata.Tx) error {
			for id, c := range pending {
				if err := j.put(tx, id, c.record); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if b.err != nil {
		j.log.Error("save containers", "error", b.err)
		j.again(pending)
	}
	close(b.done)
}

// again puts changes that failed, and that nobody is told of, into the next transaction.
func (j *journal) again(failed map[string]change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for id, c := range failed {
		if _, newer := j.pending[id]; c.later && !newer {
			j.pending[id] = c
		}
	}
}

func (j *journal) put(tx *metadata.Tx, id string, r *container.Record) error {
	if r == nil {
		return j.table.Delete(tx, id)
	}
	return j.table.Put(tx, id, *r)
}

func (j *journal) file(id string) string { return filepath.Join(j.run, id+".json") }

// saveFile replaces a record's file; a reader sees the old or the new one.
func (j *journal) saveFile(r *container.Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("save container %s: %w", r.ID, err)
	}
	temporary := j.file(r.ID) + ".new"
	if err := os.WriteFile(temporary, b, 0o600); err != nil {
		return fmt.Errorf("save container %s: %w", r.ID, err)
	}
	if err := os.Rename(temporary, j.file(r.ID)); err != nil {
		return fmt.Errorf("save container %s: %w", r.ID, err)
	}
	return nil
}

// load returns all records.
func (j *journal) load() ([]*container.Record, error) {
	var all []*container.Record
	err := j.db.View(func(tx *metadata.Tx) error {
		for _, r := range j.table.All(tx) {
			all = append(all, &r)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load containers: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(j.run, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("load containers: %w", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("load containers: %w", err)
		}
		r := &container.Record{}
		if err := json.Unmarshal(b, r); err != nil {
			j.log.Warn("load container: unreadable record is left out", "file", name, "error", err)
			continue
		}
		all = append(all, r)
	}
	return all, nil
}
