package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// contender is one program doing the work.
type contender struct {
	name string
	do   func() error
}

// result holds a contender's times, sorted.
type result struct {
	name   string
	times  []time.Duration
	failed bool // a peer that cannot do it here is left out
}

func (r result) at(fraction float64) time.Duration {
	return r.times[min(len(r.times)-1, int(fraction*float64(len(r.times))))]
}
func (r result) median() time.Duration { return r.at(0.5) }

// settle is a pause before each turn, so that none is measured while what another left behind (processes
// and namespaces that end after the command) is still being cleared away.
const settle = 100 * time.Millisecond

// race lets the contenders do the work in turns, after one unmeasured round. The first is davit, which has
// to succeed.
func race(rounds int, contenders ...contender) ([]result, error) {
	results := make([]result, len(contenders))
	for i, c := range contenders {
		results[i].name = c.name
	}
	for round := range rounds + 1 {
		for i, c := range contenders {
			if results[i].failed {
				continue
			}
			time.Sleep(settle)
			begin := time.Now()
			if err := c.do(); err != nil && i > 0 {
				leaveOut(c.name, err)
				results[i].failed = true
				continue
			} else if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 || rounds == 1 {
				results[i].times = append(results[i].times, time.Since(begin))
			}
		}
	}
	results = slices.DeleteFunc(results, func(r result) bool { return r.failed })
	for _, r := range results {
		slices.Sort(r.times)
	}
	return results, nil
}

// leaveOut says why a peer is missing, in its own last words.
func leaveOut(name string, err error) {
	words := strings.TrimSpace(err.Error())
	fmt.Printf("(%s cannot do this here: %s)\n", name, words[strings.LastIndex(words, "\n")+1:])
}

// table prints the results; the first one is davit's, and others are given as multiples of it.
func table(title, budget string, results []result) {
	fmt.Printf("\n%s\n", title)
	if budget != "" {
		fmt.Printf("  budget: %s\n", budget)
	}
	fmt.Printf("  %-28s %10s %10s %10s %8s\n", "", "min", "median", "p99", "x davit")
	for _, r := range results {
		ratio := float64(r.median()) / float64(results[0].median())
		fmt.Printf("  %-28s %10s %10s %10s %8.1f\n", r.name, ms(r.times[0]), ms(r.median()), ms(r.at(0.99)), ratio)
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// raceEngines runs one command line on every engine.
func (b *bench) raceEngines(rounds int, args ...string) ([]result, error) {
	var contenders []contender
	engines := b.engines
	if slices.Contains(args, "bridge") {
		engines = b.bridging()
	}
	for _, e := range engines {
		contenders = append(contenders, contender{e.name, func() error { _, err := e.do(args...); return err }})
	}
	return race(rounds, contenders...)
}

// settledPSS is pss once it has not changed for four seconds, as of containers that idle; at most after 20.
func settledPSS(words []string) int {
	last, since := pss(words), time.Now()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && time.Since(since) < 4*time.Second; {
		<-time.After(500 * time.Millisecond)
		if now := pss(words); now < last-64 || now > last+64 {
			last, since = now, time.Now()
		}
	}
	return last
}

// pss is the proportional set size in KiB of the processes whose command lines hold one of the words.
func pss(words []string) int {
	total := 0
	for _, pid := range processes(words) {
		rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for line := range strings.SplitSeq(string(rollup), "\n") {
			var kib int
			if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kib); n == 1 {
				total += kib
			}
		}
	}
	return total
}
