package challenge

import (
	"net/http"
	"strings"
)

// challenge is one entry of a WWW-Authenticate header (RFC 9110, section 11.6.1).
type challenge struct {
	scheme string            // lower case
	params map[string]string // keys in lower case
}

// parseChallenges reads all challenges of a response. What it cannot read it leaves out.
func parseChallenges(h http.Header) []challenge {
	var all []challenge
	for _, value := range h.Values("WWW-Authenticate") {
		for value = strings.TrimSpace(value); value != ""; {
			var c challenge
			c, value = nextChallenge(value)
			if c.scheme != "" {
				all = append(all, c)
			}
		}
	}
	return all
}

// nextChallenge takes "Scheme k=v, k="v"" off the front of s.
func nextChallenge(s string) (challenge, string) {
	scheme, rest, _ := strings.Cut(s, " ")
	c := challenge{scheme: strings.ToLower(strings.Trim(scheme, ", ")), params: map[string]string{}}
	for {
		rest = strings.TrimLeft(rest, ", \t")
		end := strings.IndexAny(rest, "=, ")
		if end < 0 || rest[end] != '=' {
			return c, rest // the end, or the next scheme
		}
		key := strings.ToLower(rest[:end])
		var value string
		value, rest = nextValue(rest[end+1:])
		c.params[key] = value
	}
}

// nextValue takes a token or quoted string off the front of s.
func nextValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ", \t")
		if end < 0 {
			return s, ""
		}
		return s[:end], s[end:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}
