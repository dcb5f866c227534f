package main

import (
	"net/http"
	"runtime/debug"
	"time"
)

// restAfter is how long after the last request an engine counts as quiet.
const restAfter = 2 * time.Second

// resting passes requests on, and gives memory back to the kernel once none has come or ended for a
// while: what a burst needed is not held for the next one.
func resting(h http.Handler) http.Handler {
	quiet := time.AfterFunc(restAfter, debug.FreeOSMemory)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		quiet.Reset(restAfter)
		defer quiet.Reset(restAfter)
		h.ServeHTTP(w, r)
	})
}
