package snapshot

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"davit/internal/atomicfile"
	"davit/internal/diskusage"
	"davit/internal/fileattr"
	"davit/internal/spread"
	"davit/internal/trash"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/rootfs"
	"davit/store/layer"
)

// Store owns one directory of snapshots. Its methods are safe for concurrent use.
type Store struct {
	root   string
	layers *layer.Store
	trash  *trash.Bin

	mu        sync.Mutex
	snapshots map[string]Snapshot
}

const trashName = "trash"

// Open opens the store in root, creating it when needed; root is on the file system of layers, or Seal
// has to copy.
func Open(root string, layers *layer.Store, log *slog.Logger) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open snapshot store: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Store{root: root, layers: layers, snapshots: map[string]Snapshot{}}
	if err := errors.Join(spread.Mkdir(root, 0o700), os.Chmod(root, 0o700)); err != nil {
		return nil, fmt.Errorf("open snapshot store: %w", err)
	}
	if s.trash, err = trash.Open(filepath.Join(root, trashName), log); err != nil {
		return nil, fmt.Errorf("open snapshot store: %w", err)
	}
	if err := s.load(log); err != nil {
		return nil, fmt.Errorf("open snapshot store: %w", errors.Join(err, s.trash.Close(context.Background())))
	}
	return s, nil
}

// load reads the snapshots that are there. One without its record was being made when the process
// ended, or lost the record with the machine, which only a volatile one can.
func (s *Store) load(log *slog.Logger) error {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if checkKey(e.Name()) != nil {
			continue
		}
		snap, reason := s.read(e.Name())
		if reason == nil {
			s.snapshots[snap.Key] = snap
			continue
		}
		log.Warn("discarding snapshot", "snapshot", e.Name(), "reason", reason)
		if err := s.trash.Put(s.dir(e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) read(key string) (snap Snapshot, err error) {
	b, err := os.ReadFile(filepath.Join(s.dir(key), "snapshot.json"))
	if err != nil {
		return snap, err
	}
	if err := json.Unmarshal(b, &snap); err != nil {
		return snap, fmt.Errorf("read snapshot.json: %w", err)
	}
	if snap.Key != key {
		return snap, fmt.Errorf("its record says that it is %q", snap.Key)
	}
	return snap, nil
}

// Close waits, at most until ctx ends, for deletions under way; the next Open takes up the rest.
func (s *Store) Close(ctx context.Context) error { return s.trash.Close(ctx) }

// checkKey says what is wrong with a key.
func checkKey(key string) error {
	if key == "" || len(key) > 128 || key[0] == '.' || key == trashName {
		return errdefs.Invalid("invalid snapshot key %q", key)
	}
	for _, c := range []byte(key) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '.', c == '-':
		default:
			return errdefs.Invalid("invalid snapshot key %q: %q is not allowed", key, c)
		}
	}
	return nil
}

func (s *Store) dir(key string) string   { return filepath.Join(s.root, key) }
func (s *Store) upper(key string) string { return filepath.Join(s.root, key, "upper") }
func (s *Store) work(key string) string  { return filepath.Join(s.root, key, "work") }

// Prepare makes a writable snapshot over layers, lowest first (none: an empty root). It fails with
// errdefs.ErrConflict when the key is taken and with errdefs.ErrNotFound when a layer is missing.
func (s *Store) Prepare(ctx context.Context, key string, layers []oci.DiffID, opts Options) (rootfs.Rootfs, error) {
	return s.create(ctx, Snapshot{Key: key, Layers: layers, Volatile: opts.Volatile})
}

// View is Prepare for a read-only root.
func (s *Store) View(ctx context.Context, key string, layers []oci.DiffID) (rootfs.Rootfs, error) {
	return s.create(ctx, Snapshot{Key: key, Layers: layers, ReadOnly: true})
}

func (s *Store) create(ctx context.Context, snap Snapshot) (rootfs.Rootfs, error) {
	if err := checkKey(snap.Key); err != nil {
		return rootfs.Rootfs{}, err
	}
	if err := ctx.Err(); err != nil {
		return rootfs.Rootfs{}, err
	}
	result, err := s.mounts(snap)
	if err != nil {
		return rootfs.Rootfs{}, fmt.Errorf("prepare snapshot %s: %w", snap.Key, err)
	}
	err = os.Mkdir(s.dir(snap.Key), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return rootfs.Rootfs{}, errdefs.Conflict("snapshot %s exists already", snap.Key)
	}
	if err == nil {
		err = s.fill(snap)
	}
	if err != nil {
		os.RemoveAll(s.dir(snap.Key)) // the next Open would do it too
		return rootfs.Rootfs{}, fmt.Errorf("prepare snapshot %s: %w", snap.Key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshots[snap.Key] = snap
	return result, nil
}

// fill makes a snapshot's directories and, last, its record.
func (s *Store) fill(snap Snapshot) error {
	if err := os.Mkdir(s.upper(snap.Key), 0o755); err != nil {
		return err
	}
	if err := s.copyRoot(snap); err != nil {
		return err
	}
	if !snap.ReadOnly {
		if err := os.Mkdir(s.work(snap.Key), 0o700); err != nil {
			return err
		}
	}
	b, err := json.Marshal(snap)
	if err != nil {
		return err
	}
	name := filepath.Join(s.dir(snap.Key), "snapshot.json")
	if snap.Volatile {
		return atomicfile.WriteUnsynced(name, b, 0o600)
	}
	if err := atomicfile.Write(name, b, 0o600); err != nil {
		return err
	}
	return atomicfile.SyncDir(s.root)
}

// copyRoot gives the upper directory, which is the root that processes see, the attributes of the root
// of the layers. Everybody may enter it, whatever the layers say: archives of a directory that mktemp
// made are common, and a user other than root could run nothing in them.
func (s *Store) copyRoot(snap Snapshot) error {
	root, err := s.layers.RootDir(snap.Layers...)
	if err != nil {
		return err
	}
	if root == "" {
		return os.Chmod(s.upper(snap.Key), 0o755) // whatever the umask
	}
	upper := s.upper(snap.Key)
	if err := fileattr.Copy(upper, root); err != nil {
		return err
	}
	info, err := os.Stat(upper)
	if err != nil {
		return err
	}
	const all = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	return os.Chmod(upper, info.Mode()&all|0o755)
}

// mounts says how the root file system of a snapshot is put together.
func (s *Store) mounts(snap Snapshot) (rootfs.Rootfs, error) {
	lower, err := s.layers.Dirs(snap.Layers...)
	if err != nil {
		return rootfs.Rootfs{}, err
	}
	if !snap.ReadOnly {
		return rootfs.Rootfs{Lower: lower, Upper: s.upper(snap.Key), Work: s.work(snap.Key), Volatile: snap.Volatile}, nil
	}
	if len(lower) == 0 { // an overlay needs two directories
		return rootfs.Rootfs{Dir: s.upper(snap.Key)}, nil
	}
	return rootfs.Rootfs{Lower: append(lower, s.upper(snap.Key))}, nil
}

// Rootfs returns what Prepare or View returned for key, ready to be mounted (again): overlayfs's mark
// that an earlier volatile mount was not unmounted with a sync is removed.
func (s *Store) Rootfs(key string) (rootfs.Rootfs, error) {
	snap, err := s.Get(key)
	if err != nil {
		return rootfs.Rootfs{}, err
	}
	if snap.Volatile {
		if err := os.RemoveAll(filepath.Join(s.work(key), "work", "incompat")); err != nil {
			return rootfs.Rootfs{}, fmt.Errorf("reuse snapshot %s: %w", key, err)
		}
	}
	return s.mounts(snap)
}

// Get returns the snapshot, or errdefs.ErrNotFound.
func (s *Store) Get(key string) (Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap, ok := s.snapshots[key]
	if !ok {
		return Snapshot{}, errdefs.NotFound("snapshot %s not found", key)
	}
	return snap, nil
}

// Upper returns the directory of the snapshot's writes.
func (s *Store) Upper(key string) (string, error) {
	if _, err := s.Get(key); err != nil {
		return "", err
	}
	return s.upper(key), nil
}

// Written is how many bytes the files hold that were written.
func (s *Store) Written(ctx context.Context, key string) (int64, error) {
	upper, err := s.Upper(key)
	if err != nil {
		return 0, err
	}
	n, err := diskusage.Content(ctx, upper)
	if err != nil {
		return 0, fmt.Errorf("measure snapshot %s: %w", key, err)
	}
	return n, nil
}

// Changes compares the snapshot's writes with its layers: docker diff.
func (s *Store) Changes(ctx context.Context, key string) ([]layer.Change, error) {
	snap, err := s.Get(key)
	if err != nil {
		return nil, err
	}
	lower, err := s.layers.Dirs(snap.Layers...)
	if err != nil {
		return nil, err
	}
	return layer.Changes(ctx, s.upper(key), lower)
}

// Commit makes a layer of a copy of the snapshot's writes, without those at the paths of omit and below; the
// snapshot stays as it is, and may be mounted (docker commit).
func (s *Store) Commit(ctx context.Context, key string, omit map[string]bool) (oci.DiffID, error) {
	upper, err := s.Upper(key)
	if err != nil {
		return "", err
	}
	id, err := s.layers.ImportDir(ctx, upper, omit)
	if err != nil {
		return "", fmt.Errorf("commit snapshot %s: %w", key, err)
	}
	return id, nil
}

// Seal makes a layer of the snapshot's writes without copying, and removes the snapshot. It must not
// be mounted any more (a build step). On an error the snapshot is still there.
func (s *Store) Seal(ctx context.Context, key string) (oci.DiffID, error) {
	upper, err := s.Upper(key)
	if err != nil {
		return "", err
	}
	id, err := s.layers.Adopt(ctx, upper)
	if err != nil {
		return "", fmt.Errorf("seal snapshot %s: %w", key, err)
	}
	return id, s.Remove(ctx, key)
}

// Remove forgets the snapshot at once and deletes its files in the background. Removing one that is
// not there is errdefs.ErrNotFound.
func (s *Store) Remove(ctx context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.snapshots[key]; !ok {
		return errdefs.NotFound("snapshot %s not found", key)
	}
	if err := s.trash.Put(s.dir(key)); err != nil {
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	delete(s.snapshots, key)
	return nil
}

// List returns all snapshots, sorted by key.
func (s *Store) List() []Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Snapshot, 0, len(s.snapshots))
	for _, snap := range s.snapshots {
		list = append(list, snap)
	}
	slices.SortFunc(list, func(a, b Snapshot) int { return cmp.Compare(a.Key, b.Key) })
	return list
}

// Wait returns once the files of snapshots that were removed are deleted.
func (s *Store) Wait(ctx context.Context) error { return s.trash.Wait(ctx) }
