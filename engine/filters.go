package engine

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"davit/oci/errdefs"
)

// Filters are what lists, prunes and events are narrowed by: values by field. Values of one field are
// alternatives, fields all have to match.
type Filters map[string][]string

// Only refuses fields that are not among those known.
func (f Filters) Only(known ...string) error {
	for _, field := range slices.Sorted(maps.Keys(f)) {
		if !slices.Contains(known, field) {
			return errdefs.Invalid("invalid filter '%s'", field)
		}
	}
	return nil
}

// Exact says whether one of the field's values, if there are any, is among those of the thing.
func (f Filters) Exact(field string, values ...string) bool {
	wanted, ok := f[field]
	if !ok || len(wanted) == 0 {
		return true
	}
	return slices.ContainsFunc(wanted, func(w string) bool { return slices.Contains(values, w) })
}

// Match is Exact where a part of the value, or a pattern as of path.Match, will do.
func (f Filters) Match(field string, values ...string) bool {
	wanted, ok := f[field]
	if !ok || len(wanted) == 0 {
		return true
	}
	return slices.ContainsFunc(wanted, func(w string) bool {
		return slices.ContainsFunc(values, func(v string) bool {
			matched, err := path.Match(w, v)
			return strings.Contains(v, strings.Trim(w, "^$/")) && anchored(w, v) || (err == nil && matched)
		})
	})
}

// anchored honours ^ and $ around a value, which many scripts write for exact names.
func anchored(wanted, value string) bool {
	core := strings.Trim(wanted, "^$/")
	if strings.HasPrefix(wanted, "^") && !strings.HasPrefix(strings.TrimPrefix(value, "/"), core) {
		return false
	}
	return !strings.HasSuffix(wanted, "$") || strings.HasSuffix(value, core)
}

// Labels says whether labels have all of "label" and none of "label!".
func (f Filters) Labels(labels map[string]string) bool {
	has := func(wanted string) bool {
		name, value, valued := strings.Cut(wanted, "=")
		got, ok := labels[name]
		return ok && (!valued || got == value)
	}
	for _, wanted := range f["label"] {
		if !has(wanted) {
			return false
		}
	}
	return !slices.ContainsFunc(f["label!"], has)
}

// Flag returns a field's boolean, and whether there is one.
func (f Filters) Flag(field string) (value, given bool, err error) {
	values := f[field]
	if len(values) == 0 {
		return false, false, nil
	}
	switch values[0] {
	case "1", "true", "True", "TRUE", "t":
		value = true
	case "0", "false", "False", "FALSE", "f":
	default:
		return false, false, errdefs.Invalid("invalid filter '%s=%v'", field, values)
	}
	return value, true, nil
}

// Until returns the moment of the field "until", zero without one: a time stamp, or a duration back
// from now.
func (f Filters) Until(now time.Time) (time.Time, error) {
	values := f["until"]
	switch len(values) {
	case 0:
		return time.Time{}, nil
	case 1:
		return ParseTime(values[0], now)
	}
	return time.Time{}, errdefs.Invalid("more than one until filter specified")
}

// ParseTime reads a moment as Docker's clients write it: seconds since 1970 with fraction, RFC 3339
// (also in part, then in local time), or a duration back from now.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && strings.TrimLeft(s, "0123456789.") != "" {
		return now.Add(-d), nil
	}
	whole, fraction, _ := strings.Cut(s, ".")
	if seconds, err := strconv.ParseInt(whole, 10, 64); err == nil {
		nanos, err := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
		if err == nil {
			return time.Unix(seconds, nanos), nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errdefs.Invalid("failed to parse value as time or duration: %q", s)
}
