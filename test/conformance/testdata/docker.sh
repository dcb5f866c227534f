# docker.sh OCI DIR IMAGE PARENT: what dockerd does with the runtime OCI. It keeps everything in DIR, and
# its control groups below PARENT; IMAGE is a root file system as tar.
. "$(dirname "$0")/check.sh"
oci=$1 dir=$2 image=$3 parent=$4
export DOCKER_HOST=unix://$dir/docker.sock DOCKER_CONFIG=$dir/config
dockerd --data-root "$dir/data" --exec-root "$dir/run" --pidfile "$dir/docker.pid" -H "$DOCKER_HOST" --bridge none --iptables=false \
	--ip6tables=false --storage-driver vfs --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "$parent" \
	--add-runtime "davit=$oci" --default-runtime davit >"$dir/dockerd.log" 2>&1 &
dockerd=$!
i=0
until docker version >/dev/null 2>&1; do
	i=$((i + 1))
	[ $i -lt 200 ] || { echo "not ok dockerd: does not answer"; tail -5 "$dir/dockerd.log"; exit 1; }
	sleep 0.1
done
run() { docker run "$@"; }
status() { run --rm busybox sh -c 'exit 7'; echo "status $?"; }
input() { echo from stdin | run --rm -i busybox cat; }
exec_status() { docker exec crane sh -c 'exit 9'; echo "status $?"; }
pause() { docker pause crane >/dev/null && docker inspect -f '{{.State.Status}}' crane && docker unpause crane >/dev/null; }
update() { docker update --memory 48m --memory-swap 48m crane && docker inspect -f '{{.HostConfig.Memory}}' crane; }
# dockerd learns of the kill and of the end by different ways, and begins to watch for the former only when the
# container runs (with runc too it missed one of 40 kills at once under load): the container waits before the
# kill, and lives on for a moment after it.
memory() { run --name hog --memory 32m --memory-swap 32m busybox sh -c 'sleep 1; dd if=/dev/zero of=/dev/null bs=67108864 count=1; code=$?; sleep 1; exit $code'; docker inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' hog; docker rm hog; }
stats() { # dockerd collects in the background and at first shows nothing
	i=0
	until docker stats --no-stream crane | grep 64MiB; do
		i=$((i + 1))
		[ $i -lt 5 ] || { docker stats --no-stream crane; grep metrics "$dir/dockerd.log" | tail -1; return; }
	done
}
docker import "$image" busybox >/dev/null
check run '^hello$' run --rm busybox echo hello
check status '^status 7$' status
check input '^from stdin$' input
check terminal '^/dev/pts/0.?$' run --rm -t busybox tty
check no-program 'nosuch.*(not found|no such file)' run --rm busybox nosuch
check limits '^max open files +1024 +2048' run --rm --ulimit nofile=1024:2048 busybox sh -c 'tr A-Z a-z </proc/self/limits'
check capabilities '^CapEff:.0000000000000000$' run --rm --cap-drop ALL busybox grep CapEff /proc/self/status
check seccomp '^Seccomp:.2$' run --rm busybox grep Seccomp: /proc/self/status
check read-only 'Read-only file system' run --rm --read-only busybox touch /x
check detach '^[0-9a-f]{64}$' run -d --name crane --net host --memory 64m --pids-limit 50 busybox sleep 1000
check runtime '^davit true$' docker inspect -f '{{.HostConfig.Runtime}} {{.State.Running}}' crane
check exec '^root$' docker exec crane whoami
check exec-status '^status 9$' exec_status
check pause '^paused$' pause
check top 'sleep 1000' docker top crane
check stats '64MiB' stats
check update '^50331648$' update
check stop '^crane$' docker stop -t 1 crane
check killed '^137$' docker inspect -f '{{.State.ExitCode}}' crane
check start '^crane$' docker start crane
check remove '^crane$' docker rm -f crane
check out-of-memory '^137 true$' memory
check nothing-left '^0$' sh -c "find /sys/fs/cgroup -path '*$parent/*' -type d | grep -c ."
kill $dockerd
wait $dockerd
