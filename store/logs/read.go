package logs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"time"
)

// Options choose what Read yields. Zero means everything there is now, of no stream: set Stdout,
// Stderr or both.
type Options struct {
	Stdout, Stderr bool

	Tail  *int      // only the last so many entries of both streams, before the other filters; nil: all
	Since time.Time // none before this moment
	Until time.Time // none after it; zero: no end

	// Follow goes on with new entries until ctx ends, Until is past, or Done is closed and everything
	// written before is yielded.
	Follow bool
	Done   <-chan struct{}

	Details bool // keep Entry.Attrs
}

// Read yields the entries of the log whose current file is path, oldest first. A log that does not
// exist has none. The error, if any, comes last, with an empty entry; the end of ctx is no error.
//
// To yield the last entries it reads those only, and to begin at a moment it looks for it by bisection.
func Read(ctx context.Context, path string, o Options) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := &reader{path: path, options: o}
		defer r.close()
		err := r.run(ctx, func(e Entry) bool { return yield(e, nil) })
		if err != nil && ctx.Err() == nil {
			yield(Entry{}, err)
		}
	}
}

// errStop ends a reader without an error for its caller.
var errStop = errors.New("stop")

// reader walks the files of one log from old to new.
type reader struct {
	path    string
	options Options
	lines   lines
	watch   *watch
}

func (r *reader) close() {
	r.lines.close()
	if r.watch != nil {
		r.watch.close()
	}
}

func (r *reader) run(ctx context.Context, yield func(Entry) bool) error {
	if r.options.Follow {
		r.watch = newWatch(ctx, r.path, r.options.Done) // before the first look, so that no change is missed
	}
	files, err := openAll(r.path)
	if err != nil {
		return err
	}
	defer func() { closeAll(files) }()
	first, offset, err := r.begin(files)
	for i := first; i < len(files) && err == nil; i++ {
		r.lines.set(files[i], offset)
		files[i], offset = nil, 0
		err = r.drain(ctx, yield)
	}
	if err == nil && r.options.Follow {
		err = r.follow(ctx, yield)
	}
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// begin finds the file and offset of the first entry that may be wanted.
func (r *reader) begin(files []*os.File) (int, int64, error) {
	if r.options.Tail != nil {
		return tail(files, *r.options.Tail)
	}
	if !r.options.Since.IsZero() {
		return since(files, r.options.Since)
	}
	return 0, 0, nil
}

// drain yields what the present file holds, up to its end. A last line without newline stays for later.
func (r *reader) drain(ctx context.Context, yield func(Entry) bool) error {
	for {
		line, err := r.lines.next()
		if err != nil || line == nil {
			return err
		}
		if ctx.Err() != nil {
			return errStop
		}
		entry, err := parse(line)
		if err != nil {
			continue // torn by a full disk; the writer went on in a new line
		}
		if !r.options.Until.IsZero() && entry.Time.After(r.options.Until) {
			return errStop
		}
		if r.wanted(&entry) && !yield(entry) {
			return errStop
		}
	}
}

func (r *reader) wanted(e *Entry) bool {
	if e.Stream == Stdout && !r.options.Stdout || e.Stream == Stderr && !r.options.Stderr {
		return false
	}
	if !r.options.Details {
		e.Attrs = nil
	}
	return r.options.Since.IsZero() || !e.Time.Before(r.options.Since)
}

// follow yields what is appended, through truncation and rotation.
func (r *reader) follow(ctx context.Context, yield func(Entry) bool) error {
	for {
		last := r.watch.ended() // asked before looking: what was written before the end is seen
		if err := r.advance(ctx, yield); err != nil {
			return err
		}
		if last {
			return nil
		}
		if !r.options.Until.IsZero() && time.Now().After(r.options.Until) {
			return nil
		}
		if err := r.watch.wait(r.options.Until); err != nil {
			return err
		}
	}
}

// advance yields everything that is there now, in the present file and those after it.
func (r *reader) advance(ctx context.Context, yield func(Entry) bool) error {
	for {
		if err := r.lines.rewindIfCleared(); err != nil {
			return err
		}
		next, err := r.next() // before draining: once there is a next file, this one grows no more
		if err != nil {
			return err
		}
		if err := r.drain(ctx, yield); err != nil || next == nil {
			return errors.Join(err, closeFile(next))
		}
		r.lines.set(next, 0)
	}
}

// next opens the file that comes after the present one, or returns nil when that is the current one.
// When the present file is rotated away altogether, it is the oldest.
func (r *reader) next() (*os.File, error) {
	if r.lines.file != nil {
		here, err := r.lines.file.Stat()
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		now, err := os.Stat(r.path)
		if errors.Is(err, os.ErrNotExist) || err == nil && os.SameFile(now, here) {
			return nil, nil
		}
	}
	files, err := openAll(r.path)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	defer func() { closeAll(files) }()
	next := 0
	for i := range files {
		same, err := r.lines.in(files[i])
		if err != nil {
			return nil, err
		}
		if same {
			next = i + 1
		}
	}
	if next == len(files) {
		return nil, nil
	}
	f := files[next]
	files[next] = nil
	return f, nil
}

// openAll opens the files of a log, oldest first. One that sees a rotation come to its end looks again:
// while files change their numbers twice, some would be passed over.
func openAll(path string) ([]*os.File, error) {
	for tries := 10; ; tries-- {
		before, _ := os.Stat(path) // nil: there is none
		files, err := openNumbers(path)
		after, _ := os.Stat(path)
		if err != nil || tries == 0 || same(before, after) {
			return files, err
		}
		closeAll(files)
	}
}

func same(a, b os.FileInfo) bool {
	return a == nil && b == nil || a != nil && b != nil && os.SameFile(a, b)
}

// openNumbers opens the files by their numbers, the current one first, so that nothing new is missed. A
// rotation under way can show one file twice, or leave a gap of one number.
func openNumbers(path string) (files []*os.File, err error) {
	var newer os.FileInfo
	for i, missing := 0, 0; missing < 2; i++ {
		f, err := os.Open(numbered(path, i))
		if errors.Is(err, os.ErrNotExist) {
			missing++
			continue
		}
		missing = 0
		if err == nil {
			var info os.FileInfo
			if info, err = f.Stat(); err == nil && newer != nil && os.SameFile(info, newer) {
				f.Close()
				continue
			}
			newer = info
		}
		if err != nil {
			closeAll(files)
			return nil, errors.Join(fmt.Errorf("read log: %w", err), closeFile(f))
		}
		files = append([]*os.File{f}, files...)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		closeFile(f)
	}
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}
