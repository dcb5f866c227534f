package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"davit/oci/errdefs"
	"davit/registry/cache"
	"davit/registry/oidc"
	"davit/registry/pattern"
	"davit/registry/people"
	"davit/registry/quota"
	"davit/registry/retention"
	"davit/registry/storage"
	"davit/registry/web"
)

// Rules are who may do what, the content of the file that --config names. The first rule that speaks of
// the repository, the user and the action decides; where none does, the request is denied.
type Rules struct {
	Htpasswd string  `json:"htpasswd,omitempty"` // file of users with bcrypt hashes
	Robots   []Robot `json:"robots,omitempty"`
	Rules    []Rule  `json:"rules"`

	// OIDC is where people sign in; nil: nowhere.
	OIDC *oidc.Config `json:"oidc,omitempty"`
	// Upstreams are registries whose content is cached.
	Upstreams []cache.Upstream `json:"upstreams,omitempty"`
	// Quotas bound what repositories hold; each that speaks of a repository counts.
	Quotas []quota.Rule `json:"quotas,omitempty"`
	// Retention is which tags and manifests stay.
	Retention []retention.Rule `json:"retention,omitempty"`
}

// open says whether the file is about other things than users: then everybody may do everything.
func (r Rules) open() bool {
	return r.Htpasswd == "" && r.Robots == nil && r.Rules == nil && r.OIDC == nil && (r.Upstreams != nil || r.Quotas != nil || r.Retention != nil)
}

// Robot is an account for programs. It logs in as "robot+NAME" with its secret (a user name of Basic
// authentication cannot hold a colon).
type Robot struct {
	Name    string    `json:"name"`
	Secret  string    `json:"secretSHA256"` // of a long random secret, in hex: the file need not be kept secret
	Expires time.Time `json:"expires,omitzero"`
}

// Rule allows, or denies, actions on repositories.
type Rule struct {
	Name         string   `json:"name"`         // for the log
	Repositories []string `json:"repositories"` // with * for any characters
	Users        []string `json:"users"`        // a name, "robot+NAME", "@GROUP" of the provider, "anonymous", "users" for all that logged in, or "*"
	Actions      []string `json:"actions"`      // "pull", "push", "delete"; "admin" is all, and catalog and metrics
	Deny         bool     `json:"deny,omitempty"`
}

// Policy is an Authorizer by Rules, read again when their file changes, with passwords or with tokens of
// its own /token.
type Policy struct {
	path   string
	log    *slog.Logger
	tokens tokens
	state  atomic.Pointer[policyState]
	failed throttle
	people persons
	// reread, when not nil, is given new rules before they are used, and may refuse them.
	reread func(Rules) error
}

type policyState struct {
	rules   Rules
	users   *Htpasswd      // nil without a file
	oidc    *oidc.Provider // nil: nobody signs in at one
	changed time.Time
	looked  time.Time
}

// lookEvery is how often the file's time is looked at.
const lookEvery = time.Second

// NewPolicy reads the file; key signs tokens.
func NewPolicy(path string, key []byte, log *slog.Logger) (*Policy, error) {
	p := &Policy{path: path, log: log, tokens: tokens{key}, people: newPersons(key)}
	state, err := p.read()
	if err != nil {
		return nil, err
	}
	p.state.Store(state)
	return p, nil
}

func (p *Policy) read() (*policyState, error) {
	info, err := os.Stat(p.path)
	if err != nil {
		return nil, fmt.Errorf("read registry rules: %w", err)
	}
	content, err := os.ReadFile(p.path)
	if err != nil {
		return nil, fmt.Errorf("read registry rules: %w", err)
	}
	state := &policyState{changed: info.ModTime(), looked: time.Now()}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields() // a misspelled word must not open the registry
	if err := decoder.Decode(&state.rules); err != nil {
		return nil, fmt.Errorf("read registry rules %s: %w", p.path, err)
	}
	if err := state.rules.check(); err != nil {
		return nil, fmt.Errorf("read registry rules %s: %w", p.path, err)
	}
	if state.rules.Htpasswd != "" {
		if state.users, err = NewHtpasswd(state.rules.Htpasswd, false); err != nil {
			return nil, err
		}
	}
	if state.rules.OIDC != nil {
		state.oidc, err = oidc.New(*state.rules.OIDC)
	}
	return state, err
}

func (r Rules) check() error {
	if r.OIDC != nil {
		if err := r.OIDC.Check(); err != nil {
			return err
		}
	}
	for i, rule := range r.Rules {
		if rule.Name == "" || len(rule.Repositories) == 0 || len(rule.Users) == 0 || len(rule.Actions) == 0 {
			return fmt.Errorf("rule %d (%q) wants name, repositories, users and actions", i+1, rule.Name)
		}
		for _, action := range rule.Actions {
			if !slices.Contains([]string{"pull", "push", "delete", "admin"}, action) {
				return fmt.Errorf("rule %q: unknown action %q", rule.Name, action)
			}
		}
	}
	for _, robot := range r.Robots {
		if sum, err := hex.DecodeString(robot.Secret); err != nil || len(sum) != sha256.Size || robot.Name == "" {
			return fmt.Errorf("robot %q wants a name and secretSHA256 of %d hexadecimal digits", robot.Name, 2*sha256.Size)
		}
	}
	return errors.Join(quota.Check(r.Quotas), retention.Check(r.Retention))
}

// current returns the rules, read again if their file changed. A file that cannot be used changes nothing.
func (p *Policy) current() *policyState {
	state := p.state.Load()
	if time.Since(state.looked) < lookEvery {
		return state
	}
	next := *state
	next.looked = time.Now()
	if info, err := os.Stat(p.path); err == nil && !info.ModTime().Equal(state.changed) {
		read, err := p.read()
		if err == nil && p.reread != nil {
			err = p.reread(read.rules)
		}
		if err == nil {
			p.log.Info("registry rules were read again", "file", p.path)
			next = *read
		} else {
			p.log.Error("the registry's new rules are not used, the old ones hold", "error", err)
			next.changed = info.ModTime()
		}
	}
	p.state.CompareAndSwap(state, &next)
	return &next
}

// who is somebody as the rules see them.
type who struct {
	user   string   // empty: anonymous
	groups []string // that the provider says a person is in
	token  string   // ID of the personal token that was the password; empty: another password, or none
	claim  *claim   // of the token of /token, if one was given
}

// decide returns the name of the rule that decides and whether it allows.
func (r Rules) decide(w who, repository, action string) (rule string, allowed bool) {
	if r.open() {
		return "there are no rules", true
	}
	for _, rule := range r.Rules {
		if rule.covers(w, repository, action) {
			return rule.Name, !rule.Deny
		}
	}
	return "no rule allows it", false
}

func (r Rule) covers(w who, repository, action string) bool {
	return (slices.Contains(r.Actions, action) || slices.Contains(r.Actions, "admin")) &&
		pattern.Any(r.Repositories, repository) &&
		slices.ContainsFunc(r.Users, func(name string) bool {
			group, isGroup := strings.CutPrefix(name, "@")
			return name == "*" || w.user == "" && name == "anonymous" || w.user != "" && (name == w.user || name == "users") ||
				isGroup && slices.Contains(w.groups, group)
		})
}

// Authorize implements Authorizer.
func (p *Policy) Authorize(w http.ResponseWriter, r *http.Request, name, action string) (string, error) {
	state := p.current()
	by, _, err := p.visitor(state, r, action == "pull")
	if err != nil {
		p.challenge(w, r, name, action)
		return by.user, err
	}
	if name == "" { // the ping: who may enter at all
		if by.user == "" && by.claim == nil && !state.rules.open() {
			p.challenge(w, r, name, action)
			return "", fail("UNAUTHORIZED", "authentication required")
		}
		return by.user, nil
	}
	if name == "*" {
		action = "admin"
	}
	rule, allowed := state.rules.decide(by, name, action)
	_, spelled, _, _ := parse(r.URL.Path) // a copy's repository may be asked for by the upstream's name alone
	if allowed && (by.claim == nil || by.claim.covers(name, action) || by.claim.covers(spelled, action)) {
		return by.user, nil
	}
	if allowed {
		rule = "the token's scope"
	}
	p.log.Warn("request denied", "rule", rule, "user", by.user, "address", clientAddress(r), "repository", name, "action", action)
	if by.user == "" || allowed {
		p.challenge(w, r, name, action)
		return by.user, deniedBy(rule, "UNAUTHORIZED", "authentication required")
	}
	return by.user, deniedBy(rule, "DENIED", "%s may not %s %s", by.user, action, name)
}

// Visit implements Authorizer.
func (p *Policy) Visit(r *http.Request) (web.Visitor, error) {
	state := p.current()
	by, proof, err := p.visitor(state, r, true)
	return web.Visitor{User: by.user, Proof: proof, May: func(name, action string) bool {
		_, allowed := state.rules.decide(by, name, action)
		return allowed && (by.claim == nil || by.claim.covers(name, action))
	}}, err
}

// identify returns who makes a request, by its Authorization.
func (p *Policy) identify(state *policyState, r *http.Request) (who, error) {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		c, err := p.tokens.open(token, time.Now())
		if err != nil {
			return who{}, fail("UNAUTHORIZED", "%w", err)
		}
		if c.Refresh {
			return who{}, fail("UNAUTHORIZED", "a refresh token is good for /token alone")
		}
		by, err := p.holds(r.Context(), state, c)
		by.claim = &c
		return by, err
	}
	user, password, given := r.BasicAuth()
	if !given {
		return who{}, nil
	}
	return p.login(state, r, user, password)
}

var errTooMany = errors.New("too many wrong passwords: wait and try again")

// login checks a password. An address that gave several wrong ones has to wait, longer each time; personal
// tokens are too long to be guessed, and one that expired shall not keep its neighbours out.
func (p *Policy) login(state *policyState, r *http.Request, user, password string) (who, error) {
	address := clientAddress(r)
	if people.IsToken(password) && state.person(user) {
		person, token, err := p.people.store.Check(r.Context(), user, password)
		if err != nil {
			p.log.Warn("token refused", "user", user, "address", address, "error", err)
		}
		return who{user: user, groups: person.Groups, token: token}, unauthorized(err)
	}
	if p.failed.wait(address, time.Now()) > 0 {
		return who{user: user}, &failure{"TOOMANYREQUESTS", http.StatusTooManyRequests, errTooMany}
	}
	if state.accepts(user, password) {
		p.failed.forget(address)
		return who{user: user}, nil
	}
	p.failed.note(address, time.Now())
	p.log.Warn("wrong user or password", "user", user, "address", address)
	return who{user: user}, fail("UNAUTHORIZED", "wrong user or password")
}

// unauthorized gives what is an ErrUnauthorized the registry's code, and leaves other errors alone.
func unauthorized(err error) error {
	if errors.Is(err, errdefs.ErrUnauthorized) {
		return fail("UNAUTHORIZED", "%w", err)
	}
	return err
}

func (s *policyState) accepts(user, password string) bool {
	if robot, ok := s.robot(user); ok {
		sum := sha256.Sum256([]byte(password))
		want, _ := hex.DecodeString(robot.Secret) // check has seen it
		return subtle.ConstantTimeCompare(sum[:], want) == 1
	}
	return s.users != nil && user != "" && !strings.HasPrefix(user, "robot+") && s.users.check(user, password)
}

// robot finds an account that has not expired.
func (s *policyState) robot(user string) (Robot, bool) {
	for _, robot := range s.rules.Robots {
		if user == "robot+"+robot.Name && (robot.Expires.IsZero() || time.Now().Before(robot.Expires)) {
			return robot, true
		}
	}
	return Robot{}, false
}

// secret returns what an account's password is checked against; ok is false when there is no such account.
func (s *policyState) secret(user string) (secret string, ok bool) {
	if strings.HasPrefix(user, "robot+") {
		robot, ok := s.robot(user)
		return robot.Secret, ok
	}
	if s.users == nil {
		return "", false
	}
	return s.users.hash(user)
}

// schemeOf is "https" when the client, or a proxy before us, speaks TLS.
func schemeOf(r *http.Request) string {
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		return "https"
	}
	return "http"
}

// challenge tells clients where tokens are (distribution, "Token Authentication Specification").
func (p *Policy) challenge(w http.ResponseWriter, r *http.Request, name, action string) {
	value := fmt.Sprintf(`Bearer realm=%q,service=%q`, schemeOf(r)+"://"+r.Host+"/token", r.Host)
	switch {
	case name == "*":
		value += `,scope="registry:catalog:*"`
	case name != "" && action == "push":
		value += fmt.Sprintf(`,scope="repository:%s:pull,push"`, name)
	case name != "":
		value += fmt.Sprintf(`,scope="repository:%s:%s"`, name, action)
	}
	w.Header().Set("WWW-Authenticate", value)
}

// tokenKey returns the key of tokens, which all processes over one store share; the first makes it.
func tokenKey(ctx context.Context, records interface {
	GetRecord(context.Context, string) ([]byte, error)
	SwapRecord(context.Context, string, storage.Version, []byte) (storage.Version, error)
},
) ([]byte, error) {
	key, err := records.GetRecord(ctx, "secret/token-key")
	if err == nil && len(key) >= sha256.Size {
		return key, nil
	}
	if ignoreMissing(err) != nil {
		return nil, fmt.Errorf("read the key of tokens: %w", err)
	}
	_, err = records.SwapRecord(ctx, "secret/token-key", storage.Absent, newKey())
	if err != nil && !errors.Is(err, errdefs.ErrConflict) {
		return nil, fmt.Errorf("keep the key of tokens: %w", err)
	}
	return records.GetRecord(ctx, "secret/token-key")
}
