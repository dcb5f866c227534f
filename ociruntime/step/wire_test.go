package step

import (
	"math"
	"reflect"
	"testing"
)

func TestProgramSurvivesTheWire(t *testing.T) {
	program := []Step{
		{Op: MountNew, Type: "tmpfs", Source: "shm", Path: "/dev/shm", List: []string{"mode=1777", "size=64m"}, Words: []uint64{14, 0, math.MaxUint64}},
		{Op: Seccomp, Soft: true, Data: []byte{0, 1, 2, 255}},
		{Op: Run, List: []string{"sh", "-c", ""}, Env: []string{"A=ü"}, Words: []uint64{0, 1}, File: 300},
	}
	files, got, err := Decode(Encode(7, program))
	if err != nil || files != 7 || !reflect.DeepEqual(got, program) {
		t.Fatalf("got %d files, %+v, %v", files, got, err)
	}
}

func TestCutProgramIsAnError(t *testing.T) {
	whole := Encode(1, []Step{{Op: Hostname, Source: "box"}, {Op: Run, List: []string{"true"}}})
	for n := range whole {
		if _, _, err := Decode(whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes decode", n, len(whole))
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(1, []Step{{Op: Hostname, Source: "box"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if files, steps, err := Decode(b); err == nil {
			if _, again, err := Decode(Encode(files, steps)); err != nil || !reflect.DeepEqual(again, steps) {
				t.Errorf("%v, %v", again, err)
			}
		}
	})
}
