/* Loads the filter on stdin into this process with the flags in argv[1], then makes the system calls whose
 * numbers follow, without arguments, and prints each one's errno. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
	static struct sock_filter code[4096];
	size_t n = fread(code, sizeof *code, 4096, stdin);
	struct sock_fprog prog = {n, code};
	setvbuf(stdout, NULL, _IONBF, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, strtoul(argv[1], 0, 10), &prog)) {
		perror("load");
		return 1;
	}
	for (int i = 2; i < argc; i++) {
		long rc = syscall(strtol(argv[i], 0, 10), 0, 0, 0, 0, 0, 0);
		printf("%d ", rc < 0 ? errno : 0);
	}
	return 0;
}
