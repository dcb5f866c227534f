package opts

import "strings"

// List is a flag that may be repeated, each time with one value; commas mean nothing to it.
type List struct{ values *[]string }

// ListOf returns the flag that appends to values. Defining one takes nearly nothing, which matters to run
// with its forty: pflag's own lists set up a CSV writer each, to show their empty default.
func ListOf(values *[]string) List { return List{values} }

func (l List) Set(value string) error {
	*l.values = append(*l.values, value)
	return nil
}

func (l List) String() string { return strings.Join(*l.values, ",") }

func (l List) Type() string { return "list" }
