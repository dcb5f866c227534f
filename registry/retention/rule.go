// Package retention decides which tags and manifests of a repository are to go. It reads nothing and
// deletes nothing.
package retention

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Rule says what stays of the tags that it is about, and how long manifests without a tag do. The first rule
// that speaks of a tag decides about it, and the first that speaks of untagged manifests about those; what
// no rule speaks of stays.
type Rule struct {
	Name         string   `json:"name"`
	Repositories []string `json:"repositories"`   // with * for any characters
	Tags         []string `json:"tags,omitempty"` // with * too; none: it is not about tags

	// A tag stays that any of these keeps.
	KeepAll     bool `json:"keepAll,omitempty"`
	KeepNewest  int  `json:"keepNewest,omitempty"`  // of those that this rule decides about, by their last moves
	KeepYounger Age  `json:"keepYounger,omitempty"` // since their last moves

	// UntaggedAfter is how long a manifest stays that nothing needs; 0: for ever.
	UntaggedAfter Age `json:"untaggedAfter,omitempty"`
}

// Check says what is wrong with the rules of a file.
func Check(rules []Rule) error {
	seen := map[string]bool{}
	for i, rule := range rules {
		keeps := rule.KeepAll || rule.KeepNewest > 0 || rule.KeepYounger > 0
		switch {
		case rule.Name == "" || seen[rule.Name] || len(rule.Repositories) == 0:
			return fmt.Errorf("retention rule %d (%q) wants a name of its own and repositories", i+1, rule.Name)
		case rule.KeepNewest < 0:
			return fmt.Errorf("retention rule %q: %d tags cannot be kept", rule.Name, rule.KeepNewest)
		case keeps != (len(rule.Tags) > 0):
			return fmt.Errorf("retention rule %q wants tags together with keepAll, keepNewest or keepYounger", rule.Name)
		case !keeps && rule.UntaggedAfter == 0:
			return fmt.Errorf("retention rule %q says neither which tags stay nor how long untagged manifests do", rule.Name)
		}
		seen[rule.Name] = true
	}
	return nil
}

// Age is a time that a file has as "36h", "30d" or "8w".
type Age time.Duration

const day = 24 * time.Hour

// UnmarshalJSON implements json.Unmarshaler.
func (a *Age) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("want an age such as \"36h\", \"30d\" or \"8w\": %w", err)
	}
	age, err := parseAge(text)
	if err != nil || age <= 0 {
		return fmt.Errorf("%q: want an age such as \"36h\", \"30d\" or \"8w\"", text)
	}
	*a = Age(age)
	return nil
}

func parseAge(text string) (time.Duration, error) {
	for suffix, unit := range map[string]time.Duration{"d": day, "w": 7 * day} {
		if digits, ok := strings.CutSuffix(text, suffix); ok {
			n, err := strconv.ParseUint(digits, 10, 16)
			return time.Duration(n) * unit, err
		}
	}
	return time.ParseDuration(text)
}

// MarshalJSON implements json.Marshaler.
func (a Age) MarshalJSON() ([]byte, error) { return json.Marshal(a.String()) }

// String is as it is in a file.
func (a Age) String() string {
	if d := time.Duration(a); d%day != 0 {
		return d.String()
	}
	return strconv.Itoa(int(time.Duration(a)/day)) + "d"
}
