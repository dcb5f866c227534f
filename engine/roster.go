package engine

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"davit/oci/errdefs"
)

// roster knows every container by id and by name. A name is taken from the moment a container is to be
// made under it.
type roster struct {
	mu    sync.RWMutex
	byID  map[string]*actor
	names map[string]string // name to id
}

func newRoster() *roster {
	return &roster{byID: map[string]*actor{}, names: map[string]string{}}
}

// reserve takes a name for a container.
func (r *roster) reserve(name, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if owner, taken := r.names[name]; taken && owner != id {
		return errdefs.Conflict("Conflict. The container name \"/%s\" is already in use by container \"%s\". You have to remove (or rename) that container to be able to reuse that name.", name, owner)
	}
	r.names[name] = id
	return nil
}

// release gives a name back, if it is still the container's.
func (r *roster) release(name, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names[name] == id {
		delete(r.names, name)
	}
}

// rename moves names from one container to the next, all at once: names to ids.
func (r *roster) rename(names map[string]string, gone ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.Copy(r.names, names)
	for _, name := range gone {
		delete(r.names, name)
	}
}

func (r *roster) add(a *actor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byID[a.id] = a
	r.names[a.record().Name] = a.id
}

// drop forgets a container and its name.
func (r *roster) drop(a *actor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, a.id)
	if name := a.record().Name; r.names[name] == a.id {
		delete(r.names, name)
	}
}

// all returns every container, newest first.
func (r *roster) all() []*actor {
	r.mu.RLock()
	actors := make([]*actor, 0, len(r.byID))
	for _, a := range r.byID {
		actors = append(actors, a)
	}
	r.mu.RUnlock()
	slices.SortFunc(actors, func(a, b *actor) int { return b.record().Created.Compare(a.record().Created) })
	return actors
}

// find returns a container by its full id, its name (with or without slash), or the beginning of its
// id, in this order.
func (r *roster) find(name string) (*actor, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if name == "" {
		return nil, errdefs.Invalid("No container name or ID supplied")
	}
	if a, ok := r.byID[name]; ok {
		return a, nil
	}
	if a, ok := r.byID[r.names[strings.TrimPrefix(name, "/")]]; ok {
		return a, nil
	}
	var found *actor
	for id, a := range r.byID {
		if !strings.HasPrefix(id, name) {
			continue
		}
		if found != nil {
			return nil, errdefs.Invalid("Multiple IDs found with provided prefix: %s", name)
		}
		found = a
	}
	if found == nil {
		return nil, errdefs.NotFound("No such container: %s", name)
	}
	return found, nil
}
