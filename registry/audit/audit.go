// Package audit appends to a file what was done to a registry: a JSON object a line. Nobody waits for the
// file: what is written goes through a queue, and a disk that is full or slow costs records, which are
// counted, but no request.
package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"davit/oci"
)

// The results of what was tried.
const (
	OK     = "ok"
	Denied = "denied"
	Failed = "failed"
)

// Record is a line.
type Record struct {
	Time   time.Time `json:"time"`
	Action string    `json:"action"` // "pull", "push", "tag", "delete", "rollback", "login", "list"
	Result string    `json:"result"` // OK, Denied or Failed
	Rule   string    `json:"rule,omitempty"`
	Error  string    `json:"error,omitempty"`
	Status int       `json:"status,omitempty"` // of HTTP

	User      string `json:"user,omitempty"`
	Address   string `json:"address,omitempty"`
	Forwarded string `json:"forwarded,omitempty"` // X-Forwarded-For, which a client can make up
	Agent     string `json:"agent,omitempty"`

	Repository string     `json:"repository,omitempty"`
	Kind       string     `json:"kind,omitempty"`      // "manifest", "blob", "delta"
	Reference  string     `json:"reference,omitempty"` // tag or digest, as it was asked for
	Digest     oci.Digest `json:"digest,omitempty"`
	Bytes      int64      `json:"bytes,omitempty"` // sent
}

const (
	queued   = 8192 // records that wait at most
	batch    = 64 << 10
	patience = time.Second // of those who may be made to wait for room in the queue
	retry    = time.Second
)

// Log is a file that is appended to.
type Log struct {
	path  string
	log   *slog.Logger
	queue chan []byte
	done  chan struct{}
	stop  chan struct{} // closed when what cannot be written is to be given up

	closing sync.RWMutex // held for reading by those who put into the queue
	closed  bool

	Written, Lost, Failures atomic.Int64 // records, records, attempts

	file *os.File // of the goroutine that writes
}

// Open opens a file for appending, or makes it; "-" is standard output. A file that is renamed or removed
// is made again, so that logrotate needs to tell nobody.
func Open(path string, log *slog.Logger) (*Log, error) {
	l := &Log{path: path, log: log, queue: make(chan []byte, queued), done: make(chan struct{}), stop: make(chan struct{})}
	if path == "-" {
		l.file = os.Stdout
	} else if err := l.open(); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	go l.run()
	return l, nil
}

// Write queues a record. Where the queue is full the record is lost, after a while if the caller may be
// made to wait: who changes something is, who reads is not.
func (l *Log) Write(ctx context.Context, r Record, wait bool) {
	line, err := json.Marshal(r)
	if err != nil {
		l.Lost.Add(1)
		return
	}
	line = append(line, '\n')
	l.closing.RLock()
	defer l.closing.RUnlock()
	if l.closed {
		l.Lost.Add(1)
		return
	}
	select {
	case l.queue <- line:
		return
	default:
	}
	if wait {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		select {
		case l.queue <- line:
			return
		case <-ctx.Done():
		}
	}
	l.Lost.Add(1)
}

// Close writes what is queued, if that is possible before ctx ends. Writing after it loses records.
func (l *Log) Close(ctx context.Context) error {
	l.closing.Lock()
	wasClosed := l.closed
	l.closed = true
	l.closing.Unlock()
	if wasClosed {
		return nil
	}
	close(l.queue)
	select {
	case <-l.done:
	case <-ctx.Done():
		close(l.stop)
		<-l.done
	}
	if l.path == "-" {
		return nil
	}
	return l.file.Close()
}

func (l *Log) run() {
	defer close(l.done)
	for line := range l.queue {
		lines, count := line, int64(1)
		for more := true; more && len(lines) < batch; {
			select {
			case next, ok := <-l.queue:
				if more = ok; ok {
					lines, count = append(lines, next...), count+1
				}
			default:
				more = false
			}
		}
		l.append(lines, count)
	}
}

// append writes lines, as often as it takes; only Close can end that.
func (l *Log) append(lines []byte, count int64) {
	written, failing := 0, false
	for {
		moved, err := l.follow()
		if moved { // a line is not divided between files
			written = bytes.LastIndexByte(lines[:written], '\n') + 1
		}
		if err == nil {
			n, failed := l.file.Write(lines[written:])
			written, err = written+n, failed
		}
		if err == nil {
			l.Written.Add(count)
			if failing {
				l.log.Info("the audit log is written again", "file", l.path, "lost", l.Lost.Load())
			}
			return
		}
		l.Failures.Add(1)
		if !failing {
			l.log.Error("the audit log cannot be written: records wait, then are lost", "file", l.path, "error", err)
		}
		failing = true
		select {
		case <-time.After(retry):
		case <-l.stop:
			l.Lost.Add(int64(bytes.Count(lines[written:], []byte{'\n'})))
			return
		}
	}
}

// follow opens the file anew when another one, or none, has its name.
func (l *Log) follow() (moved bool, err error) {
	if l.path == "-" {
		return false, nil
	}
	now, err := os.Stat(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err == nil {
		mine, err := l.file.Stat()
		if err != nil || os.SameFile(mine, now) {
			return false, err
		}
	}
	old := l.file
	if err := l.open(); err != nil {
		return false, err
	}
	return true, old.Close()
}

// open leaves l.file as it is when it fails. A line that a crash left unfinished gets an end.
func (l *Log) open() error {
	file, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := endLine(file); err != nil {
		return errors.Join(err, file.Close())
	}
	l.file = file
	return nil
}

func endLine(file *os.File) error {
	info, err := file.Stat()
	if err != nil || info.Size() == 0 || !info.Mode().IsRegular() {
		return err
	}
	last := make([]byte, 1)
	if _, err := file.ReadAt(last, info.Size()-1); err != nil || last[0] == '\n' {
		return err
	}
	_, err = file.Write([]byte{'\n'})
	return err
}
