package lease

import "testing"

// swept says whether a collector, which holds a lease of its own, would delete the key now.
func swept(l *Ledger, key string) bool {
	deleted, _ := l.Delete(key, func() error { return nil })
	return deleted
}

func TestLedger(t *testing.T) {
	var l Ledger
	l.Touch("before")
	pull := l.Hold()
	l.Touch("pulled")
	gc := l.Hold()
	l.Touch("meanwhile")
	for key, want := range map[string]bool{"before": true, "pulled": false, "meanwhile": false, "never": true} {
		if got := swept(&l, key); got != want {
			t.Errorf("%s: swept %v, want %v", key, got, want)
		}
	}
	pull()
	pull() // harmless
	if !swept(&l, "pulled") || swept(&l, "meanwhile") {
		t.Error("the younger lease protects what was touched since it was taken, no more")
	}
	gc()
	if !swept(&l, "meanwhile") {
		t.Error("something is kept without a lease")
	}
}
