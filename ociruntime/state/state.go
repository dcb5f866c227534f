// Package state keeps what must be known of a container after the process that made it is gone.
//
//	<root>/                 0700, on a file system that a reboot empties
//	  <id>/
//	    cgroup              a link that leads nowhere: the path of the cgroup, noted before that is made
//	    state.json          State
//	    spec.json           the runtime spec as Create got it
//	    start.sock          init accepts here while it is parked; gone once started
//
// A directory without state.json is a container whose creation has not finished or was killed.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// State is one container's record.
type State struct {
	Version   int               `json:"version"` // 1
	ID        string            `json:"id"`
	Bundle    string            `json:"bundle"`
	Pid       int               `json:"pid"`
	StartTime uint64            `json:"startTime"` // of Pid, in clock ticks since boot: tells a reused pid apart
	Cgroup    string            `json:"cgroup"`    // what kernel/cgroup.Load takes
	Created   time.Time         `json:"created"`
	Rootfs    string            `json:"rootfs,omitempty"`
	Labels    map[string]string `json:"annotations,omitempty"`
	Owner     int               `json:"owner"` // user id of who made it
}

// Store is the directory of all containers.
type Store struct{ root string }

// Open makes the directory if it is missing.
func Open(root string) (*Store, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	return &Store{root}, nil
}

// Dir is the directory of one container.
func (s *Store) Dir(id string) string { return filepath.Join(s.root, id) }

// StartSocket is where a parked init accepts.
func (s *Store) StartSocket(id string) string { return filepath.Join(s.root, id, "start.sock") }

var validID = regexp.MustCompile(`^[\w][\w+.-]*$`)

// Reserve makes the directory of a new container. A taken id is an ErrConflict.
func (s *Store) Reserve(id string) error {
	if !validID.MatchString(id) || len(id) > 255 {
		return errdefs.Invalid("invalid container id %q: it must match %s", id, validID)
	}
	err := os.Mkdir(s.Dir(id), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return errdefs.Conflict("container with id %q already exists", id)
	}
	if err != nil {
		return fmt.Errorf("make container directory: %w", err)
	}
	return nil
}

// SaveGroup notes the path of the container's cgroup, in one step.
func (s *Store) SaveGroup(id, path string) error {
	if err := os.Symlink(path, filepath.Join(s.Dir(id), "cgroup")); err != nil {
		return fmt.Errorf("note cgroup: %w", err)
	}
	return nil
}

// LoadGroup reads what SaveGroup noted; "" when it did not.
func (s *Store) LoadGroup(id string) (string, error) {
	path, err := os.Readlink(filepath.Join(s.Dir(id), "cgroup"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read noted cgroup: %w", err)
	}
	return path, nil
}

// Save writes the record; nothing is synced, since a reboot ends the container.
func (s *Store) Save(st State) error {
	st.Version = 1
	return s.write(st.ID, "state.json", st)
}

// SaveSpec keeps the spec.
func (s *Store) SaveSpec(id string, spec *specs.Spec) error { return s.write(id, "spec.json", spec) }

func (s *Store) write(id, name string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	path := filepath.Join(s.Dir(id), name)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// Load reads the record, or returns ErrNotFound.
func (s *Store) Load(id string) (State, error) {
	var st State
	err := s.read(id, "state.json", &st)
	if err == nil && st.Version != 1 {
		err = errdefs.New(errdefs.ErrUnsupported, "container %q has state version %d", id, st.Version)
	}
	return st, err
}

// LoadSpec reads the spec.
func (s *Store) LoadSpec(id string) (*specs.Spec, error) {
	spec := &specs.Spec{}
	return spec, s.read(id, "spec.json", spec)
}

func (s *Store) read(id, name string, into any) error {
	if !validID.MatchString(id) {
		return errdefs.Invalid("invalid container id %q: it must match %s", id, validID)
	}
	b, err := os.ReadFile(filepath.Join(s.Dir(id), name))
	if errors.Is(err, fs.ErrNotExist) {
		return errdefs.NotFound("container %q does not exist", id)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("decode %s of container %q: %w", name, id, err)
	}
	return nil
}

// List returns the ids of all containers, sorted.
func (s *Store) List() ([]string, error) { return s.list(true) }

// Unfinished returns the ids that were reserved and have no record.
func (s *Store) Unfinished() ([]string, error) { return s.list(false) }

func (s *Store) list(recorded bool) ([]string, error) {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(s.root, e.Name(), "state.json")); (err == nil) == recorded {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Remove forgets the container. It is fine when there is none.
func (s *Store) Remove(id string) error {
	if err := os.RemoveAll(s.Dir(id)); err != nil {
		return fmt.Errorf("remove container directory: %w", err)
	}
	return nil
}
