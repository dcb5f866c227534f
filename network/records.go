package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"davit/store/metadata"
)

// networksTable holds the networks: key id, value Network.
func networksTable() metadata.Table[Network] { return metadata.NewTable[Network]("networks") }

func loadNetworks(db *metadata.DB) ([]Network, error) {
	var all []Network
	err := db.View(func(tx *metadata.Tx) error {
		for _, n := range networksTable().All(tx) {
			all = append(all, n)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load networks: %w", err)
	}
	return all, nil
}

func putNetwork(db *metadata.DB, n Network) error {
	err := db.Update(func(tx *metadata.Tx) error { return networksTable().Put(tx, n.ID, n) })
	if err != nil {
		return fmt.Errorf("record network %s: %w", n.Name, err)
	}
	return nil
}

func deleteNetwork(db *metadata.DB, id string) error {
	err := db.Update(func(tx *metadata.Tx) error { return networksTable().Delete(tx, id) })
	if err != nil {
		return fmt.Errorf("forget network %s: %w", id, err)
	}
	return nil
}

// files is the directory with one file per container that has attached endpoints. It lies on a tmpfs:
// writing is atomic (rename) and not synced.
type files string

func (f files) path(containerID string) string { return filepath.Join(string(f), containerID+".json") }

// save writes a container's endpoints; with none its file goes.
func (f files) save(containerID string, endpoints []Endpoint) error {
	if len(endpoints) == 0 {
		return f.remove(containerID)
	}
	content, err := json.Marshal(endpoints)
	if err != nil {
		return fmt.Errorf("encode endpoints of %s: %w", containerID, err)
	}
	temporary := f.path(containerID) + ".new"
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return fmt.Errorf("write endpoints of %s: %w", containerID, err)
	}
	if err := os.Rename(temporary, f.path(containerID)); err != nil {
		return fmt.Errorf("write endpoints of %s: %w", containerID, err)
	}
	return nil
}

func (f files) remove(containerID string) error {
	if err := os.Remove(f.path(containerID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove endpoints of %s: %w", containerID, err)
	}
	return nil
}

// load reads all files. What a crash left half done is thrown away.
func (f files) load() ([]Endpoint, error) {
	entries, err := os.ReadDir(string(f))
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	var all []Endpoint
	for _, entry := range entries {
		path := filepath.Join(string(f), entry.Name())
		if !strings.HasSuffix(path, ".json") {
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("remove leftover: %w", err)
			}
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read endpoints: %w", err)
		}
		var endpoints []Endpoint
		if err := json.Unmarshal(content, &endpoints); err != nil {
			return nil, fmt.Errorf("decode %s: %w", path, err)
		}
		all = append(all, endpoints...)
	}
	return all, nil
}
