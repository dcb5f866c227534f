package volume

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"davit/internal/atomicfile"
	"davit/internal/diskusage"
	"davit/internal/spread"
	"davit/internal/trash"
	"davit/internal/turn"
	"davit/oci/errdefs"
)

// Store owns one directory of volumes. Its methods are safe for concurrent use.
type Store struct {
	root    string
	trash   *trash.Bin
	copying turn.Turns[string] // volumes that CopyUp looks at

	mu      sync.Mutex
	volumes map[string]Volume
}

// Open opens the store in root, creating it when needed.
func Open(root string, log *slog.Logger) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open volume store: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Store{root: root, volumes: map[string]Volume{}}
	if err := spread.Mkdir(root, 0o700); err != nil {
		return nil, fmt.Errorf("open volume store: %w", err)
	}
	if s.trash, err = trash.Open(filepath.Join(root, ".trash"), log); err != nil {
		return nil, fmt.Errorf("open volume store: %w", err)
	}
	if err := s.load(log); err != nil {
		return nil, fmt.Errorf("open volume store: %w", errors.Join(err, s.trash.Close(context.Background())))
	}
	return s, nil
}

// load reads the volumes that are there. One whose record is lost keeps its data and its name.
func (s *Store) load(log *slog.Logger) error {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, statErr := os.Lstat(s.removed(e.Name())); statErr == nil || strings.HasPrefix(e.Name(), ".new-") {
			err = errors.Join(err, s.trash.Put(filepath.Join(s.root, e.Name())))
			continue
		}
		if checkName(e.Name()) != nil || !e.IsDir() {
			continue
		}
		v, readErr := s.read(e.Name())
		if readErr != nil {
			log.Warn("volume has lost its record", "volume", e.Name(), "error", readErr)
		}
		s.volumes[v.Name] = v
	}
	return err
}

func (s *Store) read(name string) (Volume, error) {
	v := Volume{Name: name, Path: s.data(name)}
	b, err := os.ReadFile(filepath.Join(s.root, name, "volume.json"))
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	v.Name = name
	return v, err
}

func (s *Store) data(name string) string    { return filepath.Join(s.root, name, "_data") }
func (s *Store) removed(name string) string { return filepath.Join(s.root, name, "_removed") }

// Close waits, at most until ctx ends, for deletions under way; the next Open takes up the rest.
func (s *Store) Close(ctx context.Context) error { return s.trash.Close(ctx) }

// checkName says in Docker's words what is wrong with a name.
func checkName(name string) error {
	if len(name) == 1 {
		return errdefs.Invalid("create %s: volume name is too short, names should be at least two alphanumeric characters", name)
	}
	ok := name != ""
	for i, c := range []byte(name) {
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (alphanumeric || i > 0 && strings.IndexByte("_.-", c) >= 0)
	}
	if !ok {
		return errdefs.Invalid(`create %s: %q includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`, name, name)
	}
	return nil
}

// checkOptions says in Docker's words what is wrong with the local driver's options.
func checkOptions(name string, options map[string]string) error {
	needs := map[string][]string{"device": {"type"}, "type": {"device"}, "o": {"device", "type"}}
	for _, option := range slices.Sorted(maps.Keys(options)) {
		if option == "size" {
			return errdefs.Invalid("create %s: quota size requested but no quota support", name)
		}
		required, known := needs[option]
		if !known {
			return errdefs.Invalid("create %s: invalid option: %q", name, option)
		}
		for _, other := range required {
			if _, ok := options[other]; !ok {
				return errdefs.Invalid("create %s: missing required option: %q", name, other)
			}
		}
	}
	return nil
}

// Create makes a volume, or returns the one of that name. With an empty name it makes an anonymous
// one: 64 hexadecimal digits, labelled LabelAnonymous. driver is "" or "local". A bad name or option
// fails with errdefs.ErrInvalid in Docker's words.
func (s *Store) Create(ctx context.Context, name, driver string, options, labels map[string]string) (Volume, error) {
	labels = maps.Clone(labels)
	if name == "" {
		name = randomName()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[LabelAnonymous] = ""
	}
	if err := checkName(name); err != nil {
		return Volume{}, err
	}
	if driver != "" && driver != "local" {
		return Volume{}, errdefs.NotFound("create %s: error looking up volume plugin %s: plugin %q not found", name, driver, driver)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.volumes[name]; ok {
		return v, nil
	}
	if err := checkOptions(name, options); err != nil {
		return Volume{}, err
	}
	v := Volume{Name: name, Options: maps.Clone(options), Labels: labels, Created: time.Now().UTC(), Path: s.data(name)}
	if err := s.make(v); err != nil {
		return Volume{}, fmt.Errorf("create %s: %w", name, err)
	}
	s.volumes[name] = v
	return v, nil
}

func randomName() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// make builds the volume's directory aside and renames it into place. The record of an anonymous volume
// is not worth a sync: it says nothing but that.
func (s *Store) make(v Volume) error {
	draft, err := os.MkdirTemp(s.root, ".new-")
	if err != nil {
		return err
	}
	write, sync := atomicfile.Write, atomicfile.SyncDir
	if v.Anonymous() && len(v.Options) == 0 {
		write, sync = atomicfile.WriteUnsynced, func(string) error { return nil }
	}
	b, err := json.Marshal(v)
	if err == nil {
		err = write(filepath.Join(draft, "volume.json"), b, 0o600)
	}
	data := filepath.Join(draft, "_data")
	if err == nil {
		err = os.Mkdir(data, 0o755)
	}
	if err == nil {
		err = os.Chmod(data, 0o755) // whatever the umask
	}
	if err == nil {
		err = os.Rename(draft, filepath.Join(s.root, v.Name))
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(draft))
	}
	return sync(s.root)
}

// Get returns the volume, or errdefs.ErrNotFound in Docker's words.
func (s *Store) Get(ctx context.Context, name string) (Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.volumes[name]
	if !ok {
		return Volume{}, errdefs.NotFound("get %s: no such volume", name)
	}
	return v, nil
}

// List returns all volumes, sorted by name.
func (s *Store) List(ctx context.Context) []Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.volumes), func(a, b Volume) int { return cmp.Compare(a.Name, b.Name) })
}

// Remove deletes a volume. usedBy names the containers that refer to it; when there are any it fails
// with errdefs.ErrConflict in Docker's words.
func (s *Store) Remove(ctx context.Context, name string, usedBy []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.volumes[name]; !ok {
		return errdefs.NotFound("get %s: no such volume", name)
	}
	if len(usedBy) > 0 {
		return errdefs.Conflict("remove %s: volume is in use - [%s]", name, strings.Join(usedBy, ", "))
	}
	return s.drop(name)
}

// drop takes a volume's name and files away; the caller has the lock. What is mounted on a volume would
// be deleted with it: the kernel refuses to rename a mount point itself, but not a directory above one.
func (s *Store) drop(name string) error {
	err := os.Rename(s.data(name), s.removed(name))
	if errors.Is(err, syscall.EBUSY) {
		return errdefs.As(errdefs.ErrConflict, fmt.Errorf("remove %s: volume is still mounted: %w", name, err))
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = s.trash.Put(filepath.Join(s.root, name))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	delete(s.volumes, name)
	return nil
}

// Prune removes the volumes that unused approves and returns their names and the bytes they took. A
// volume comes into use between the two only if the caller lets it.
func (s *Store) Prune(ctx context.Context, unused func(Volume) bool) (names []string, bytes int64, err error) {
	for _, v := range s.List(ctx) {
		if !unused(v) {
			continue
		}
		size, err := s.Usage(ctx, v.Name)
		if err == nil {
			err = s.Remove(ctx, v.Name, nil)
		}
		if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return names, bytes, fmt.Errorf("prune volumes: %w", err)
		}
		names, bytes = append(names, v.Name), bytes+size
	}
	return names, bytes, nil
}

// Usage returns the bytes that a volume takes on the disk, as du -x counts: its files and its record.
func (s *Store) Usage(ctx context.Context, name string) (int64, error) {
	v, err := s.Get(ctx, name)
	if err != nil {
		return 0, err
	}
	u, err := diskusage.Of(ctx, filepath.Dir(v.Path))
	return u.Bytes, err
}

// Wait returns once the files of volumes that were removed are deleted.
func (s *Store) Wait(ctx context.Context) error { return s.trash.Wait(ctx) }
