// Package pattern compares names with the patterns of a registry's rules.
package pattern

import (
	"slices"
	"strings"
)

// Match compares with a pattern in which "*" stands for any characters, slashes too.
func Match(pattern, s string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, first)
	for i := 0; ok && i <= len(s); i++ {
		if Match(rest, s[i:]) {
			return true
		}
	}
	return false
}

// Any says whether one of the patterns matches.
func Any(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return Match(pattern, s) })
}
