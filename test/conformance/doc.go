// Package conformance runs other people's suites against davit's programs.
package conformance
