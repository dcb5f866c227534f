package turn

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestTurns(t *testing.T) {
	var turns Turns[string]
	over, err := turns.Take(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if overB, err := turns.Take(t.Context(), "b"); err != nil {
		t.Fatal(err)
	} else {
		overB()
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.Take(ended, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	counter := 0 // guarded by the turn of "a"
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			over, err := turns.Take(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			defer over()
			counter++
		})
	}
	counter++
	over()
	wg.Wait()
	if counter != 51 {
		t.Errorf("counter %d", counter)
	}
}
