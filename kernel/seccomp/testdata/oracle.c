/* Builds a filter with libseccomp and writes its BPF to stdout. The profile comes on stdin, a word at a
 * time: "default ACTION", "arch NAME", "rule ACTION NAME COUNT [INDEX OP A B]...", numbers in decimal. */
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *what, int rc) { fprintf(stderr, "%s: %s\n", what, strerror(-rc)); exit(1); }

int main(void) {
	scmp_filter_ctx ctx = NULL;
	char word[64], name[128];
	int rc;
	while (scanf("%63s", word) == 1) {
		if (!strcmp(word, "default")) {
			uint32_t action;
			if (scanf("%" SCNu32, &action) != 1 || !(ctx = seccomp_init(action))) fail("default", -EINVAL);
		} else if (!strcmp(word, "arch")) {
			if (scanf("%127s", name) != 1) fail("arch", -EINVAL);
			rc = seccomp_arch_add(ctx, seccomp_arch_resolve_name(name));
			if (rc < 0 && rc != -EEXIST) fail(name, rc);
		} else if (!strcmp(word, "rule")) {
			uint32_t action, index, op;
			int count;
			struct scmp_arg_cmp args[6];
			if (scanf("%" SCNu32 " %127s %d", &action, name, &count) != 3) fail("rule", -EINVAL);
			for (int i = 0; i < count; i++) {
				uint64_t a, b;
				if (scanf("%" SCNu32 " %" SCNu32 " %" SCNu64 " %" SCNu64, &index, &op, &a, &b) != 4) fail("arg", -EINVAL);
				args[i] = (struct scmp_arg_cmp){index, op, a, b};
			}
			int nr = seccomp_syscall_resolve_name(name);
			if (nr == __NR_SCMP_ERROR) { fprintf(stderr, "unknown %s\n", name); continue; }
			rc = seccomp_rule_add_array(ctx, action, nr, count, args);
			if (rc < 0) fail(name, rc);
		}
	}
	rc = seccomp_export_bpf(ctx, 1);
	if (rc < 0) fail("export", rc);
	return 0;
}
