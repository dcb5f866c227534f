package server

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"davit/registry/web"
)

// Htpasswd is an Authorizer that asks for a user of an htpasswd file with bcrypt hashes ("htpasswd -B").
// The file is read again when it changes.
type Htpasswd struct {
	path          string
	anonymousPull bool

	mu       sync.Mutex
	changed  time.Time
	users    map[string]string   // name to bcrypt hash
	verified map[string][32]byte // user to sha256 of the password that bcrypt last accepted
}

// NewHtpasswd reads the file. With anonymousPull reading needs no user.
func NewHtpasswd(path string, anonymousPull bool) (*Htpasswd, error) {
	h := &Htpasswd{path: path, anonymousPull: anonymousPull}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h, h.reload()
}

// reload reads the file if its time changed. The lock is held: the file is small and local.
func (h *Htpasswd) reload() error {
	info, err := os.Stat(h.path)
	if err != nil {
		return fmt.Errorf("read htpasswd file: %w", err)
	}
	if info.ModTime().Equal(h.changed) {
		return nil
	}
	file, err := os.Open(h.path)
	if err != nil {
		return fmt.Errorf("read htpasswd file: %w", err)
	}
	defer file.Close()
	users := map[string]string{}
	for scanner, line := bufio.NewScanner(file), 1; scanner.Scan(); line++ {
		text := strings.TrimSpace(scanner.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		name, hash, ok := strings.Cut(text, ":")
		if !ok || !strings.HasPrefix(hash, "$2") {
			return fmt.Errorf("read htpasswd file: %s:%d is not name:bcrypt-hash (make it with htpasswd -B)", h.path, line)
		}
		users[name] = hash
	}
	h.users, h.verified, h.changed = users, map[string][32]byte{}, info.ModTime()
	return nil
}

// Authorize implements Authorizer.
func (h *Htpasswd) Authorize(w http.ResponseWriter, r *http.Request, name, action string) (string, error) {
	user, password, given := r.BasicAuth()
	if !given && h.anonymousPull && action == "pull" && name != "" {
		return "", nil
	}
	if given && h.check(user, password) {
		return user, nil
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="davit registry"`)
	if !given {
		return "", fail("UNAUTHORIZED", "authentication required")
	}
	return "", fail("UNAUTHORIZED", "wrong user or password")
}

// Visit implements Authorizer.
func (h *Htpasswd) Visit(r *http.Request) (web.Visitor, error) {
	user, password, given := r.BasicAuth()
	if given && !h.check(user, password) {
		return web.Visitor{}, fail("UNAUTHORIZED", "wrong user or password")
	}
	return web.Visitor{User: user, May: func(_, action string) bool {
		return given || h.anonymousPull && action == "pull"
	}}, nil
}

// hash returns the bcrypt hash of a user's password.
func (h *Htpasswd) hash(user string) (hash string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.reload()
	hash, ok = h.users[user]
	return hash, ok && err == nil
}

// check compares by bcrypt once for each password, and by a hash in memory from then on: bcrypt takes
// tens of milliseconds on purpose, and a push makes dozens of requests. An unknown user costs as much
// as a wrong password.
func (h *Htpasswd) check(user, password string) bool {
	sum := sha256.Sum256([]byte(password))
	h.mu.Lock()
	if err := h.reload(); err != nil {
		h.users = nil // an unreadable file lets nobody in
	}
	hash, known := h.users[user]
	accepted, seen := h.verified[user]
	h.mu.Unlock()
	if seen && subtle.ConstantTimeCompare(accepted[:], sum[:]) == 1 {
		return true
	}
	if !known {
		hash = "$2y$05$aaaaaaaaaaaaaaaaaaaaaOaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	}
	if bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) != nil || !known {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users[user] == hash {
		h.verified[user] = sum
	}
	return true
}
