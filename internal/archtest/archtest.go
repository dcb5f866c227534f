// Package archtest holds the tests that keep the tree in its shape: layers.txt (who may import whom, from bottom to top)
// and deps.txt (which modules are used, and why). See those files for the rules.
package archtest
