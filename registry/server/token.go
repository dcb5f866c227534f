package server

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// tokenLife is how long a token is good for. What its user may do is decided anew at every request.
const tokenLife = 5 * time.Minute

// refreshLife is how long a refresh token is good for, unless its user is removed or changes the password.
const refreshLife = 180 * 24 * time.Hour

// claim is what a token says: who, limited to which scopes, until when.
type claim struct {
	User    string   `json:"u"`
	Scopes  []string `json:"s,omitempty"` // "repository:NAME:pull,push"
	Expires int64    `json:"e"`           // Unix seconds
	Account string   `json:"a,omitempty"` // seal of the user's password, see Policy.seal
	Token   string   `json:"p,omitempty"` // ID of the personal token that was the password
	Refresh bool     `json:"r,omitempty"` // good for other tokens alone
}

// covers says whether the scopes that the client asked for hold the action.
func (c claim) covers(name, action string) bool {
	return slices.ContainsFunc(c.Scopes, func(asked string) bool {
		return slices.ContainsFunc(strings.Fields(asked), func(scope string) bool {
			kind, rest, _ := strings.Cut(scope, ":")
			i := strings.LastIndexByte(rest, ':')
			if i < 0 {
				return false
			}
			if name == "*" {
				return kind == "registry" && rest[:i] == "catalog"
			}
			actions := strings.Split(rest[i+1:], ",")
			return kind == "repository" && rest[:i] == name && (slices.Contains(actions, action) || slices.Contains(actions, "*"))
		})
	})
}

// tokens signs and opens them: base64url(claim) "." base64url(HMAC-SHA256).
type tokens struct{ key []byte }

func newKey() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	return key
}

func (t tokens) mac(payload string) string {
	h := hmac.New(sha256.New, t.key)
	h.Write([]byte(payload))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func (t tokens) sign(c claim) (string, error) {
	value, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	payload := base64.RawURLEncoding.EncodeToString(value)
	return payload + "." + t.mac(payload), nil
}

var errBadToken = errors.New("the token is not valid or has expired")

func (t tokens) open(token string, now time.Time) (c claim, err error) {
	payload, mac, _ := strings.Cut(token, ".")
	if !hmac.Equal([]byte(mac), []byte(t.mac(payload))) {
		return c, errBadToken
	}
	value, err := base64.RawURLEncoding.DecodeString(payload)
	if err == nil {
		err = json.Unmarshal(value, &c)
	}
	if err != nil || now.Unix() >= c.Expires {
		return claim{}, errBadToken
	}
	return c, nil
}

// throttle makes addresses wait that failed several times in a row. The zero value is ready.
type throttle struct {
	mu     sync.Mutex
	failed map[string]failures
}

type failures struct {
	count int
	last  time.Time
}

const (
	freeFailures  = 5
	longestWait   = 5 * time.Minute
	mostAddresses = 10_000
)

// wait returns how long an address has to wait still.
func (t *throttle) wait(address string, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.failed[address]
	if f.count < freeFailures {
		return 0
	}
	return f.last.Add(min(time.Second<<min(f.count-freeFailures, 10), longestWait)).Sub(now)
}

func (t *throttle) note(address string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed == nil {
		t.failed = map[string]failures{}
	}
	if len(t.failed) >= mostAddresses {
		for other, f := range t.failed {
			if now.Sub(f.last) > longestWait || len(t.failed) >= mostAddresses {
				delete(t.failed, other)
			}
		}
	}
	t.failed[address] = failures{t.failed[address].count + 1, now}
}

func (t *throttle) forget(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.failed, address)
}
