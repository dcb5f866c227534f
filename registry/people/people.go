// Package people keeps the persons who signed in at an OpenID provider, and the tokens that they made for
// their programs, in the records of the registry's store:
//
//	people/KEY/person        Person
//	people/KEY/tokens/ID     Token, with the SHA-256 of its secret
//
// KEY is the SHA-256 of the person's name. A token works as a password does, until it expires or is revoked;
// the provider is not asked. Other processes over the store see a change at most a few seconds later.
package people

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"davit/oci/errdefs"
	"davit/registry/storage"
)

// Person is somebody as the provider described them when they last signed in.
type Person struct {
	Name     string    `json:"name"` // in rules, logs, and to docker login
	Issuer   string    `json:"issuer"`
	Subject  string    `json:"subject"` // who it is at the issuer, whatever they are called
	Groups   []string  `json:"groups,omitempty"`
	SignedIn time.Time `json:"signedIn"`
}

// Token is a personal access token, without its secret.
type Token struct {
	ID      string    `json:"id"`
	Label   string    `json:"label"`
	Sum     string    `json:"sha256"`
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
}

// Bounds of what a person may have.
const (
	MostTokens   = 50
	LongestLife  = 366 * 24 * time.Hour
	longestLabel = 100 // bytes
)

// prefix begins every secret, so that those who look for leaked ones know them.
const prefix = "davit_pat_"

// IsToken says whether a password looks like a token's secret.
func IsToken(secret string) bool { return strings.HasPrefix(secret, prefix) }

// Store keeps persons and tokens.
type Store struct {
	records storage.Records

	mu      sync.Mutex
	changes int // of records by this process
	seen    map[string]seen
}

// seen is what a record was.
type seen struct {
	value []byte // nil: absent
	at    time.Time
}

const (
	seenLife = 3 * time.Second
	mostSeen = 10_000
)

// New keeps persons in the records.
func New(records storage.Records) *Store { return &Store{records: records, seen: map[string]seen{}} }

func personKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "people/" + hex.EncodeToString(sum[:]) + "/person"
}

func tokensKey(name string) string    { return strings.TrimSuffix(personKey(name), "person") + "tokens" }
func tokenKey(name, id string) string { return tokensKey(name) + "/" + id }

// get decodes a record, as it was a few seconds ago at most.
func (s *Store) get(ctx context.Context, key string, into any) error {
	s.mu.Lock()
	known, ok := s.seen[key]
	changes := s.changes
	s.mu.Unlock()
	if !ok || time.Since(known.at) > seenLife {
		value, err := s.records.GetRecord(ctx, key)
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
		known = seen{value, time.Now()}
		s.remember(key, known, changes)
	}
	if known.value == nil {
		return errdefs.NotFound("there is no record %s", key)
	}
	return json.Unmarshal(known.value, into)
}

// remember keeps what was read, unless something was changed meanwhile.
func (s *Store) remember(key string, value seen, changes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes != changes {
		return
	}
	if len(s.seen) >= mostSeen {
		clear(s.seen)
	}
	s.seen[key] = value
}

// forget lets a change of this process be seen at once.
func (s *Store) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	delete(s.seen, key)
}

func (s *Store) put(ctx context.Context, key string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	defer s.forget(key)
	return s.records.PutRecord(ctx, key, content)
}

// SignedIn keeps what the provider said. It fails with ErrConflict when somebody else has the name: a
// provider may let people choose theirs.
func (s *Store) SignedIn(ctx context.Context, p Person) error {
	key := personKey(p.Name)
	old, err := s.records.ReadRecord(ctx, key)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	if err == nil {
		var known Person
		if err := json.Unmarshal(old.Value, &known); err != nil {
			return fmt.Errorf("read record of %s: %w", p.Name, err)
		}
		if known.Issuer != p.Issuer || known.Subject != p.Subject {
			return errdefs.Conflict("the name %q belongs to another person in this registry; its administrator can free it by davit registry forget %s", p.Name, p.Name)
		}
	}
	content, err := json.Marshal(p)
	if err != nil {
		return err
	}
	defer s.forget(key)
	_, err = s.records.SwapRecord(ctx, key, old.Version, content)
	if errors.Is(err, errdefs.ErrConflict) {
		return errdefs.Conflict("%q signs in twice at this moment: try again", p.Name)
	}
	return err
}

// Person returns who has a name.
func (s *Store) Person(ctx context.Context, name string) (p Person, err error) {
	return p, s.get(ctx, personKey(name), &p)
}

// Make makes a token and returns its secret, which is kept nowhere.
func (s *Store) Make(ctx context.Context, name, label string, life time.Duration) (secret string, t Token, err error) {
	label = strings.TrimSpace(label)
	switch {
	case label == "" || len(label) > longestLabel:
		return "", t, errdefs.Invalid("a token wants a name of 1 to %d bytes, for you to know it by", longestLabel)
	case life <= 0 || life > LongestLife:
		return "", t, errdefs.Invalid("a token is good for a year at most")
	}
	all, err := s.records.ListRecords(ctx, tokensKey(name))
	if err != nil {
		return "", t, err
	}
	if len(all) >= MostTokens {
		return "", t, errdefs.Conflict("you have %d tokens, and nobody may have more: revoke one first", len(all))
	}
	id := strings.ToLower(rand.Text()[:16])
	secret = prefix + id + "_" + rand.Text()
	now := time.Now().UTC().Truncate(time.Second)
	t = Token{ID: id, Label: label, Sum: sum(secret), Made: now, Expires: now.Add(life)}
	return secret, t, s.put(ctx, tokenKey(name, id), t)
}

func sum(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Tokens returns a person's tokens, the latest first; those that expired are among them.
func (s *Store) Tokens(ctx context.Context, name string) ([]Token, error) {
	ids, err := s.records.ListRecords(ctx, tokensKey(name))
	if err != nil {
		return nil, err
	}
	var all []Token
	for _, id := range ids {
		content, err := s.records.GetRecord(ctx, tokenKey(name, id))
		if errors.Is(err, errdefs.ErrNotFound) {
			continue // revoked meanwhile
		}
		var t Token
		if err == nil {
			err = json.Unmarshal(content, &t)
		}
		if err != nil {
			return nil, fmt.Errorf("read token %s: %w", id, err)
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b Token) int { return b.Made.Compare(a.Made) })
	return all, nil
}

// Revoke ends a token.
func (s *Store) Revoke(ctx context.Context, name, id string) error {
	if !isID(id) {
		return errdefs.NotFound("there is no such token")
	}
	defer s.forget(tokenKey(name, id))
	err := s.records.DeleteRecord(ctx, tokenKey(name, id))
	if errors.Is(err, errdefs.ErrNotFound) {
		return errdefs.NotFound("there is no such token")
	}
	return err
}

// Forget revokes all of a person's tokens and frees the name, which may be another's from then on. Sessions
// end too.
func (s *Store) Forget(ctx context.Context, name string) error {
	ids, err := s.records.ListRecords(ctx, tokensKey(name))
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.Revoke(ctx, name, id); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return fmt.Errorf("revoke token %s: %w", id, err)
		}
	}
	defer s.forget(personKey(name))
	err = s.records.DeleteRecord(ctx, personKey(name))
	if errors.Is(err, errdefs.ErrNotFound) {
		return errdefs.NotFound("nobody called %q signed in here", name)
	}
	return err
}

// isID keeps what a client says out of keys.
func isID(id string) bool {
	return len(id) == 16 && !strings.ContainsFunc(id, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '2' || r > '7') })
}

// Check returns the person and the ID of the token whose secret is given as the password. A wrong one, and
// one that has expired, is an ErrUnauthorized.
func (s *Store) Check(ctx context.Context, name, secret string) (Person, string, error) {
	id, _, _ := strings.Cut(strings.TrimPrefix(secret, prefix), "_")
	p, t, err := s.find(ctx, name, id)
	if err != nil {
		return Person{}, "", err
	}
	if subtle.ConstantTimeCompare([]byte(t.Sum), []byte(sum(secret))) != 1 {
		return Person{}, "", errdefs.Unauthorized("wrong user or token")
	}
	return p, t.ID, alive(t)
}

// Holds returns the person whose token was accepted before, if it still would be.
func (s *Store) Holds(ctx context.Context, name, id string) (Person, error) {
	p, t, err := s.find(ctx, name, id)
	if err == nil {
		err = alive(t)
	}
	return p, err
}

func (s *Store) find(ctx context.Context, name, id string) (p Person, t Token, err error) {
	if !isID(id) {
		return p, t, errdefs.Unauthorized("wrong user or token")
	}
	if err = s.get(ctx, tokenKey(name, id), &t); err == nil {
		p, err = s.Person(ctx, name)
	}
	if errors.Is(err, errdefs.ErrNotFound) {
		err = errdefs.Unauthorized("wrong user or token, or the token was revoked")
	}
	return p, t, err
}

func alive(t Token) error {
	if !time.Now().Before(t.Expires) {
		return errdefs.Unauthorized("the token expired at %s: make another one on the registry's page /account", t.Expires.Format(time.RFC3339))
	}
	return nil
}
