package engine

import (
	"errors"
	"os"
	"path/filepath"
)

// sweep deletes what containers left that no record knows: those to be removed at their end, whose
// records were gone with the run-time directory at a reboot, and interrupted steps of builds. What may
// be somebody's data is only told of.
//
// It looks before the engine answers anybody, so that nothing new is taken for a remnant, and returns
// what deletes.
func (l *lifecycle) sweep() func() {
	if err := os.RemoveAll(filepath.Join(l.Options.Run, "steps")); err != nil {
		l.Log.Error("remove what build steps left", "error", err)
	}
	var remnants []string
	for _, s := range l.Snapshots.List() {
		switch {
		case l.knows(s.Key):
		case s.Volatile:
			remnants = append(remnants, s.Key)
		default:
			l.Log.Warn("a container's files are here without its record", "container", s.Key)
		}
	}
	return func() {
		for _, key := range remnants {
			l.discard(key)
		}
	}
}

func (l *lifecycle) discard(key string) {
	if err := l.Snapshots.Remove(l.context, key); err != nil && !isNotFound(err) {
		l.Log.Error("remove snapshot", "container", key, "error", err)
	}
	if err := errors.Join(removeAll(filepath.Join(l.Options.Run, "containers", key)), removeAll(l.logDir(key))); err != nil {
		l.Log.Error("remove container's directory", "container", key, "error", err)
	}
}

func (l *lifecycle) knows(id string) bool {
	_, err := l.roster.find(id)
	return err == nil
}
