#include "textflag.h"

// func cloneOnStack(args *cloneArgs, size uintptr, call *spawnCall) (pid, errno uintptr)
//
// clone3(2) with a stack of the child's own. The child never returns from here: it calls becomeChild,
// which only makes system calls. Registers other than AX, CX and R11 survive the system call.
TEXT ·cloneOnStack(SB), NOSPLIT|NOFRAME, $0-40
	MOVQ args+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ call+16(FP), R12
	MOVQ $435, AX // SYS_clone3
	SYSCALL
	CMPQ AX, $0xfffffffffffff001
	JLS  cloned
	NEGQ AX
	MOVQ $0, pid+24(FP)
	MOVQ AX, errno+32(FP)
	RET

cloned:
	CMPQ AX, $0
	JEQ  child
	MOVQ AX, pid+24(FP)
	MOVQ $0, errno+32(FP)
	RET

child:
	SUBQ $16, SP
	MOVQ R12, 0(SP)
	CALL ·becomeChild(SB)
	INT  $3
