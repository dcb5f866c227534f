// Package quota bounds what repositories of a registry hold: bytes and tags. Rule says how much; Ledger
// knows what is used, and lets in what fits.
package quota

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"davit/oci/errdefs"
)

// Rule is one quota.
type Rule struct {
	Name         string   `json:"name"`               // for messages
	Repositories []string `json:"repositories"`       // with * for any characters
	Together     bool     `json:"together,omitempty"` // they share it; else each of them has as much
	Bytes        Size     `json:"bytes,omitempty"`    // 0: any number
	Tags         int      `json:"tags,omitempty"`     // 0: any number
}

// Check says what is wrong with the quotas of a file.
func Check(rules []Rule) error {
	seen := map[string]bool{}
	for i, rule := range rules {
		switch {
		case rule.Name == "" || seen[rule.Name] || len(rule.Repositories) == 0:
			return fmt.Errorf("quota %d (%q) wants a name of its own and repositories", i+1, rule.Name)
		case rule.Bytes == 0 && rule.Tags == 0:
			return fmt.Errorf("quota %q wants bytes or tags", rule.Name)
		case rule.Tags < 0:
			return fmt.Errorf("quota %q: %d tags cannot be", rule.Name, rule.Tags)
		}
		seen[rule.Name] = true
	}
	return nil
}

// Size is a count of bytes. A file has it as a number, or with a unit of 1024s: "500G", "10MiB".
type Size int64

// UnmarshalJSON implements json.Unmarshaler.
func (s *Size) UnmarshalJSON(b []byte) (err error) {
	var text string
	if json.Unmarshal(b, &text) != nil {
		text = string(b)
	}
	*s, err = ParseSize(text)
	return err
}

// String is for people: "9.8GiB".
func (s Size) String() string { return units.BytesSize(float64(s)) }

// ParseSize reads a count of bytes with a unit of 1024s: "500G", "10MiB".
func ParseSize(s string) (Size, error) {
	digits := strings.TrimRight(s, "bBiI")
	unit := int64(1)
	if i := strings.IndexAny(digits, "kKmMgGtT"); i >= 0 && i == len(digits)-1 {
		unit = 1 << (10 * (1 + strings.IndexByte("kmgt", digits[i]|0x20)))
		digits = digits[:i]
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q: want bytes, such as 500G", s)
	}
	return Size(n * unit), nil
}

// Exceeded says that something does not fit. It is an errdefs.ErrForbidden.
type Exceeded struct {
	Rule       Rule
	Repository string
	Used, Need int64 // bytes, or tags
	Tags       bool  // which of the two
	More       bool  // than Need are needed, as far as is known
}

// Error names the quota, what is used and needed, and what to do.
func (e *Exceeded) Error() string {
	whose := e.Repository
	if e.Rule.Together {
		whose = strings.Join(e.Rule.Repositories, ", ") + " together"
	}
	limit, used, need := e.Rule.Bytes.String(), Size(e.Used).String()+" are", Size(e.Need).String()+" more are"
	if e.Tags {
		limit, used, need = fmt.Sprintf("%d tags", e.Rule.Tags), fmt.Sprintf("%d are", e.Used), fmt.Sprintf("%d more are", e.Need)
	}
	what := "images"
	if e.Tags {
		what = "tags"
	}
	if e.More {
		need = "more is"
		if e.Need > 0 {
			need = "more than " + Size(e.Need).String() + " are"
		}
	}
	return fmt.Sprintf("quota %q of %s for %s: %s used, %s needed; delete %s that nobody needs, or ask for a larger quota",
		e.Rule.Name, limit, whose, used, need, what)
}

// Unwrap returns the class.
func (e *Exceeded) Unwrap() error { return errdefs.ErrForbidden }
