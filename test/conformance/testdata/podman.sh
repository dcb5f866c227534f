# podman.sh OCI DIR IMAGE PARENT: what podman does with the runtime OCI. It keeps everything in DIR, and
# its control groups below PARENT; IMAGE is a root file system as tar.
. "$(dirname "$0")/check.sh"
oci=$1 dir=$2 image=$3 parent=$4
podman() {
	command podman --root "$dir/root" --runroot "$dir/run" --tmpdir "$dir/tmp" --storage-driver vfs --cgroup-manager cgroupfs \
		--events-backend none --log-level error --runtime "$oci" "$@"
}
run() { podman run --cgroup-parent "$parent" "$@"; }
status() { run --rm --net none busybox sh -c 'exit 7'; echo "status $?"; }
input() { echo from stdin | run --rm -i --net none busybox cat; }
exec_status() { podman exec crane sh -c 'exit 9'; echo "status $?"; }
pause() { podman pause crane >/dev/null && podman inspect -f '{{.State.Status}}' crane && podman unpause crane >/dev/null; }
podman import "$image" busybox >/dev/null 2>&1
check run '^hello$' run --rm --net none busybox echo hello
check status '^status 7$' status
check input '^from stdin$' input
check terminal '^/dev/pts/0.?$' run --rm -t --net none busybox tty
check user-namespace '^ +0 +100000 +1000$' run --rm --net none --uidmap 0:100000:1000 --gidmap 0:100000:1000 busybox cat /proc/self/uid_map
check no-program 'nosuch' run --rm --net none busybox nosuch
check detach '^[0-9a-f]{64}$' run -d --name crane --net host --memory 64m --pids-limit 50 busybox sleep 1000
check runtime "^$oci true$" podman inspect -f '{{.OCIRuntime}} {{.State.Running}}' crane
check exec '^root$' podman exec crane whoami
check exec-status '^status 9$' exec_status
check pause '^paused$' pause
check stats '67.11MB' podman stats --no-stream crane
check stop '^crane$' podman stop -t 1 crane
check killed '^137$' podman inspect -f '{{.State.ExitCode}}' crane
check start '^crane$' podman start crane
check remove '^crane$' podman rm -f -t 0 crane
check nothing-left '^0$' sh -c "find /sys/fs/cgroup -path '*$parent/libpod-*' -type d | grep -vc conmon"
