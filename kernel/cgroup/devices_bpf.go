package cgroup

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// setDevicesV2 replaces the group's device filter. cgroup2 has no device files: a BPF program of type
// BPF_PROG_TYPE_CGROUP_DEVICE (Linux 4.15) decides, and stays attached until the group is removed.
// The old program is replaced in one step (BPF_F_REPLACE, Linux 5.6): there is no moment without one.
func (g *Group) setDevicesV2(rules []specs.LinuxDeviceCgroup) error {
	want, err := resolveDevices(rules)
	if err != nil {
		return err
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "davit_devices", Type: ebpf.CGroupDevice, License: "Apache-2.0", Instructions: want.filter(),
	})
	if err != nil {
		return fmt.Errorf("load device filter: %w", err)
	}
	defer prog.Close()
	return attachFilter(int(g.fd.Fd()), prog)
}

const allowMulti = 1 << 1 // BPF_F_ALLOW_MULTI: filters of nested groups apply as well

// attachFilter attaches prog in place of the first filter there is, and removes any others.
func attachFilter(cgroup int, prog *ebpf.Program) error {
	old, err := link.QueryPrograms(link.QueryOptions{Target: cgroup, Attach: ebpf.AttachCGroupDevice})
	if err != nil {
		return fmt.Errorf("list device filters: %w", err)
	}
	opts := link.RawAttachProgramOptions{Target: cgroup, Program: prog, Attach: ebpf.AttachCGroupDevice, Flags: allowMulti}
	for i, p := range old.Programs {
		previous, err := ebpf.NewProgramFromID(p.ID)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("open device filter: %w", err)
		}
		defer previous.Close()
		if i == 0 {
			opts.Anchor = link.ReplaceProgram(previous)
			continue
		}
		err = link.RawDetachProgram(link.RawDetachProgramOptions{Target: cgroup, Program: previous, Attach: ebpf.AttachCGroupDevice})
		if err != nil {
			return fmt.Errorf("detach device filter: %w", err)
		}
	}
	if err := link.RawAttachProgram(opts); err != nil {
		return fmt.Errorf("attach device filter: %w", err)
	}
	return nil
}

// Offsets in struct bpf_cgroup_dev_ctx, of three 32-bit numbers: access<<16 | type, major, minor.
const (
	ctxAccessType = 0
	ctxMajor      = 4
	ctxMinor      = 8
)

// filter compiles the list. The program keeps type, access, major and minor in R2 to R5 and compares
// them with one exception after the other; the first that matches decides.
func (l deviceList) filter() asm.Instructions {
	ins := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, ctxAccessType, asm.Word),
		asm.Mov.Reg32(asm.R3, asm.R2),
		asm.And.Imm32(asm.R2, 0xffff),
		asm.RSh.Imm32(asm.R3, 16),
		asm.LoadMem(asm.R4, asm.R1, ctxMajor, asm.Word),
		asm.LoadMem(asm.R5, asm.R1, ctxMinor, asm.Word),
	}
	for i, dev := range l.sorted() {
		ins = append(ins, l.match(dev, fmt.Sprintf("rule%d", i))...)
	}
	return append(ins, verdict(l.allow)...)
}

// match returns the opposite of the default when the request is dev's. label must be unique; the code
// after the rule is reached by skipping over it.
func (l deviceList) match(dev device, label string) asm.Instructions {
	next := label + "_next"
	kind := int32(2) // BPF_DEVCG_DEV_CHAR
	if dev.kind == 'b' {
		kind = 1 // BPF_DEVCG_DEV_BLOCK
	}
	ins := asm.Instructions{asm.JNE.Imm32(asm.R2, kind, next)}
	bits := l.except[dev]
	if bits != accessAll {
		ins = append(ins, asm.Mov.Reg32(asm.R1, asm.R3))
		if l.allow {
			// Forbidden is a request that asks for any of the bits.
			ins = append(ins, asm.And.Imm32(asm.R1, int32(bits)), asm.JEq.Imm32(asm.R1, 0, next))
		} else {
			// Allowed is a request that asks for none but the bits.
			ins = append(ins, asm.And.Imm32(asm.R1, int32(^bits&accessAll)), asm.JNE.Imm32(asm.R1, 0, next))
		}
	}
	if dev.major != anyNumber {
		ins = append(ins, asm.JNE.Imm32(asm.R4, int32(dev.major), next))
	}
	if dev.minor != anyNumber {
		ins = append(ins, asm.JNE.Imm32(asm.R5, int32(dev.minor), next))
	}
	ins = append(ins, verdict(!l.allow)...)
	return append(ins, asm.Mov.Reg32(asm.R2, asm.R2).WithSymbol(next))
}

// verdict returns 1, allow, or 0, EPERM.
func verdict(allow bool) asm.Instructions {
	n := int32(0)
	if allow {
		n = 1
	}
	return asm.Instructions{asm.Mov.Imm32(asm.R0, n), asm.Return()}
}
