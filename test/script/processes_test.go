package script

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// endProcesses ends what a script started in the background and did not end itself, as one does that fails in
// its middle. Where it went through to its end, such a process is an error.
func endProcesses(t *testing.T, work string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !t.Failed() && time.Now().Before(deadline); { // they may have been told to end
		if len(started(work)) == 0 {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	passed := !t.Failed()
	for deadline := time.Now().Add(10 * time.Second); ; { // one may start another before it ends
		left := started(work)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("processes of the script cannot be ended: %v", left)
			return
		}
		for pid, command := range left {
			if passed {
				t.Errorf("left behind: process %d: %s", pid, command)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
				t.Errorf("end process %d of the script: %v", pid, err)
			}
		}
		passed = false
		<-time.After(10 * time.Millisecond)
	}
}

// started finds the processes that inherited a script's environment, of which WORK is this script's alone, and
// their command lines.
func started(work string) map[int]string {
	found := map[int]string{}
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environments {
		environment, err := os.ReadFile(path) // empty for a process that has ended
		if err != nil || !bytes.Contains(append([]byte{0}, environment...), []byte("\x00WORK="+work+"\x00")) {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err == nil {
			found[pid] = strings.ReplaceAll(strings.TrimRight(string(command), "\x00"), "\x00", " ")
		}
	}
	return found
}

// What a failed script leaves running is ended with it.
func TestEndProcesses(t *testing.T) {
	work := t.TempDir()
	attributes := &os.ProcAttr{Env: []string{"A=b", "WORK=" + work, "C=d"}, Files: []*os.File{nil, nil, nil}}
	other := &os.ProcAttr{Env: []string{"WORK=" + work + "2"}, Files: attributes.Files}
	mine, err := os.StartProcess("/bin/sleep", []string{"sleep", "100"}, attributes)
	if err != nil {
		t.Fatal(err)
	}
	others, err := os.StartProcess("/bin/sleep", []string{"sleep", "100"}, other)
	if err != nil {
		t.Fatal(err)
	}
	// The environment is the program's once it is executed, which StartProcess waits for.
	if found := started(work); len(found) != 1 || found[mine.Pid] != "sleep 100" {
		t.Errorf("found %v, want %d", found, mine.Pid)
	}
	ended := make(chan *os.ProcessState, 1)
	go func() { state, _ := mine.Wait(); ended <- state }()
	failed := &testing.T{}
	failed.Fail()
	endProcesses(failed, work)
	if state := <-ended; state == nil || state.Success() {
		t.Errorf("the process ended with %v", state)
	}
	if err := others.Kill(); err != nil { // it was spared
		t.Error(err)
	}
	if state, err := others.Wait(); err != nil || state.Exited() {
		t.Errorf("the other process ended by itself: %v, %v", state, err)
	}
}
