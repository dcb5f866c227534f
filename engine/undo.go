package engine

// undo collects what takes back the steps done so far, for a function of many steps:
//
//	var u undo
//	defer func() { u.unless(err == nil) }()
//	... do a thing ...
//	u.add(func() { ... take it back ... })
type undo []func()

func (u *undo) add(f func()) { *u = append(*u, f) }

// unless runs the steps backwards, unless everything went well.
func (u *undo) unless(ok bool) {
	if ok {
		return
	}
	for i := len(*u) - 1; i >= 0; i-- {
		(*u)[i]()
	}
}
