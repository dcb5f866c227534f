# check NAME PATTERN COMMAND...: run a command and say whether its output has a line of the pattern.
check() {
	name=$1 pattern=$2
	shift 2
	out=$("$@" 2>&1)
	if echo "$out" | grep -qE "$pattern"; then echo "ok $name"; else echo "not ok $name: got: $out"; fi
}
