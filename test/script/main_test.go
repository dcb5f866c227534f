package script

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

const sandboxed = "DAVIT_SCRIPT_SANDBOX"

// TestMain runs the tests in a child that has its own mount and network namespaces.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(sandboxed) != "" {
		os.Exit(runSandboxed(m))
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "script tests run containers and need root: run them as root")
		os.Exit(1)
	}
	outside, err := os.Open("/proc/self/ns/net")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s3, err := exec.Command("../prepare-s3", "versitygw").Output()
	if err == nil {
		err = os.Setenv("PATH", filepath.Dir(string(s3))+":"+os.Getenv("PATH"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "prepare an S3 server:", err)
		os.Exit(1)
	}
	child := exec.Command("/proc/self/exe", os.Args[1:]...)
	child.ExtraFiles = []*os.File{outside} // descriptor 3: where packages come from
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.Env = append(os.Environ(), sandboxed+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := child.Run(); err != nil {
		if child.ProcessState == nil {
			fmt.Fprintln(os.Stderr, "make namespaces for the tests:", err)
		}
		os.Exit(1)
	}
}

func runSandboxed(m *testing.M) int {
	if err := prepareSandbox(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin, err := filepath.Abs("../../bin")
	if err == nil {
		err = os.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func prepareSandbox() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("bring up loopback: %w: %s", err, out)
	}
	return nil
}

// outside returns the network namespace where packages come from. It is a copy of the descriptor, whose
// owner would close it.
func outside(t *testing.T) *os.File {
	t.Helper()
	fd, err := syscall.Dup(3)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "outside")
	t.Cleanup(func() { f.Close() })
	return f
}

// repository is the root of the source tree.
func repository(t testing.TB) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}
