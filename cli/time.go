package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// apiTime turns a time as users write it (a duration ago, RFC 3339 with or without zone, a date, unix
// seconds) into the API's seconds with nanoseconds; "" stays "".
func apiTime(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	if d, err := time.ParseDuration(value); err == nil {
		return unixTime(time.Now().Add(-d)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02", "2006-01-02Z07:00"} {
		if t, err := time.ParseInLocation(layout, value, time.Local); err == nil {
			return unixTime(t), nil
		}
	}
	seconds, fraction, _ := strings.Cut(value, ".")
	if _, err := strconv.ParseInt(seconds, 10, 64); err != nil || strings.Trim(fraction, "0123456789") != "" {
		return "", fmt.Errorf("invalid value for time: %q is neither a duration, an RFC 3339 time nor unix seconds", value)
	}
	return value, nil
}

func unixTime(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

// copyTo is io.Copy without the short cuts that need a file on both ends.
func copyTo(w io.Writer, r io.Reader) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{r})
}
