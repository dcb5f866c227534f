package quota

import (
	"context"
	"slices"
	"sync"
	"time"

	"davit/internal/turn"
	"davit/oci"
	"davit/registry/pattern"
)

// fresh is how long a count is believed: about what other processes let in meanwhile nothing is known
// here. Nothing is refused without a count of that moment.
const fresh = 5 * time.Second

// Holding is what counts of a repository.
type Holding struct {
	Blobs map[oci.Digest]int64 // sizes
	Tags  []string
}

// Bytes is their sum.
func (h Holding) Bytes() (sum int64) {
	for _, size := range h.Blobs {
		sum += size
	}
	return sum
}

// Content is what repositories hold, as all processes over the store see it.
type Content interface {
	Repositories(ctx context.Context) ([]string, error)
	// Holding is empty for a repository that is not there.
	Holding(ctx context.Context, repository string) (Holding, error)
}

// Ledger lets in what fits. What it has let in counts at once, before it is stored.
type Ledger struct {
	content  Content
	rules    func() []Rule
	standard Rule // where no other rule speaks of a repository; its zero value is no bound

	turns    turn.Turns[string] // who counts an account
	mu       sync.Mutex
	accounts map[string]*account
}

// NewLedger makes one. rules is asked at each admission.
func NewLedger(content Content, rules func() []Rule, standard Rule) *Ledger {
	return &Ledger{content: content, rules: rules, standard: standard, accounts: map[string]*account{}}
}

// of returns the rules that bound a repository.
func (l *Ledger) of(repository string) []Rule {
	var found []Rule
	for _, rule := range l.rules() {
		if pattern.Any(rule.Repositories, repository) {
			found = append(found, rule)
		}
	}
	if len(found) == 0 && (l.standard.Bytes > 0 || l.standard.Tags > 0) {
		found = append(found, l.standard)
	}
	return found
}

// Admit reserves room for blobs and tags in a repository; what it has already needs none. The caller
// calls done once they are stored, or will not be. err is an *Exceeded where they do not fit.
func (l *Ledger) Admit(ctx context.Context, repository string, blobs map[oci.Digest]int64, tags []string) (done func(stored bool), err error) {
	var reserved []func(bool)
	done = func(stored bool) {
		for _, one := range reserved {
			one(stored)
		}
	}
	for _, rule := range l.of(repository) {
		one, err := l.admit(ctx, rule, repository, blobs, tags)
		if err != nil {
			done(false)
			return nil, err
		}
		reserved = append(reserved, one)
	}
	return done, nil
}

func (l *Ledger) admit(ctx context.Context, rule Rule, repository string, blobs map[oci.Digest]int64, tags []string) (func(bool), error) {
	wanted := map[string]int64{}
	for d, size := range blobs {
		wanted[string(d)] = size
	}
	named := map[string]int64{}
	for _, tag := range tags {
		named[tagOf(rule, repository, tag)] = 1
	}
	a, over, err := l.account(ctx, rule, repository, fresh)
	if err != nil {
		return nil, err
	}
	defer over()
	refused := a.reserve(rule, repository, wanted, named)
	if refused != nil {
		if err := l.count(ctx, a, rule, repository, 0); err != nil {
			return nil, err
		}
		refused = a.reserve(rule, repository, wanted, named)
	}
	if refused != nil {
		return nil, refused
	}
	return func(stored bool) { a.release(wanted, named, stored) }, nil
}

// Room returns how many more bytes fit into a repository by the rule that leaves the least, and what to say
// to those who need more, but for how much that is; nil when any number fits. It is counted anew when need
// does not fit.
func (l *Ledger) Room(ctx context.Context, repository string, need int64) (bytes int64, full *Exceeded, err error) {
	for _, rule := range l.of(repository) {
		if rule.Bytes == 0 {
			continue
		}
		used, err := l.used(ctx, rule, repository, need)
		if err != nil {
			return 0, nil, err
		}
		if left := max(0, int64(rule.Bytes)-used); full == nil || left < bytes {
			bytes, full = left, &Exceeded{Rule: rule, Repository: repository, Used: used}
		}
	}
	return bytes, full, nil
}

func (l *Ledger) used(ctx context.Context, rule Rule, repository string, need int64) (int64, error) {
	a, over, err := l.account(ctx, rule, repository, fresh)
	if err != nil {
		return 0, err
	}
	defer over()
	if used := a.used(); used+need <= int64(rule.Bytes) {
		return used, nil
	}
	err = l.count(ctx, a, rule, repository, 0)
	return a.used(), err
}

// Recount is for what came into a repository without being admitted.
func (l *Ledger) Recount(ctx context.Context, repository string) error {
	_, err := l.States(ctx, repository)
	return err
}

// State is a rule with what is used of it now.
type State struct {
	Rule
	UsedBytes int64 `json:"usedBytes"`
	UsedTags  int   `json:"usedTags"`
}

// States returns the rules that bound a repository.
func (l *Ledger) States(ctx context.Context, repository string) ([]State, error) {
	states := []State{}
	for _, rule := range l.of(repository) {
		a, over, err := l.account(ctx, rule, repository, 0)
		if err != nil {
			return nil, err
		}
		a.mu.Lock()
		states = append(states, State{rule, a.bytes.sum, int(a.tags.sum)})
		a.mu.Unlock()
		over()
	}
	return states, nil
}

// account returns that of a rule for a repository, counted lately. The caller has the turn until over.
func (l *Ledger) account(ctx context.Context, rule Rule, repository string, age time.Duration) (a *account, over func(), err error) {
	key := rule.Name
	if !rule.Together {
		key += " " + repository
	}
	if over, err = l.turns.Take(ctx, key); err != nil {
		return nil, nil, err
	}
	l.mu.Lock()
	a, ok := l.accounts[key]
	if !ok {
		a = &account{}
		l.accounts[key] = a
	}
	l.mu.Unlock()
	if err := l.count(ctx, a, rule, repository, age); err != nil {
		over()
		return nil, nil, err
	}
	return a, over, nil
}

// count brings an account up to date unless it was counted within age.
func (l *Ledger) count(ctx context.Context, a *account, rule Rule, repository string, age time.Duration) error {
	began := time.Now()
	if began.Sub(a.counted) < age {
		return nil
	}
	names := []string{repository}
	if rule.Together {
		all, err := l.content.Repositories(ctx)
		if err != nil {
			return err
		}
		names = slices.DeleteFunc(all, func(name string) bool { return !pattern.Any(rule.Repositories, name) })
	}
	blobs, tags := map[string]int64{}, map[string]int64{}
	for _, name := range names {
		holding, err := l.content.Holding(ctx, name)
		if err != nil {
			return err
		}
		for d, size := range holding.Blobs {
			blobs[string(d)] = size
		}
		for _, tag := range holding.Tags {
			tags[tagOf(rule, name, tag)] = 1
		}
	}
	a.recount(blobs, tags, began)
	return nil
}

func tagOf(rule Rule, repository, tag string) string {
	if rule.Together {
		return repository + ":" + tag
	}
	return tag
}
