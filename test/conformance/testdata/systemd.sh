# systemd.sh BIN DIR IMAGE PARENT: davitd with --exec-opt native.cgroupdriver=systemd, below a systemd that is
# process 1 of namespaces of its own and has the control groups below PARENT. Everything is kept in DIR; IMAGE
# is a root file system as tar.
. "$(dirname "$0")/check.sh"
bin=$1 dir=$2 image=$3 parent=$4
root=$dir/root
mkdir "$root" "$dir/state"
mount -t tmpfs state "$dir/state"
mkdir "$dir/state/upper" "$dir/state/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/state/upper,workdir=$dir/state/work" "$root"
hierarchies() { awk '$3 ~ /^cgroup2?$/ {print $2}' /proc/self/mounts; }
for hierarchy in $(hierarchies); do
	mkdir "$hierarchy$parent"
	for file in cpuset.cpus cpuset.mems; do
		[ ! -e "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$hierarchy$parent/$file"
	done
done
cat >"$dir/enter.sh" <<'ENTER'
root=$1 bin=$2 dir=$3
grep -E '^[^ ]+ [^ ]+ cgroup2? ' /proc/self/mounts >"$dir/hierarchies"
mount -t proc proc "$root/proc"
mount -t sysfs sys "$root/sys"
for point in run tmp dev; do mount -t tmpfs -o mode=755 $point "$root/$point"; done
mkdir -p "$root$bin" "$root$dir"
mount --bind "$bin" "$root$bin"
mount --bind "$dir" "$root$dir"
mount --bind "$dir/state" "$root$dir/state"
for node in null zero full random urandom tty; do cp -a /dev/$node "$root/dev/"; done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
touch "$root/dev/console"
# The same hierarchies as outside, each with PARENT as its root.
grep -q ' /sys/fs/cgroup cgroup2 ' "$dir/hierarchies" || mount -t tmpfs -o mode=755 cgroup "$root/sys/fs/cgroup"
while read -r _ point kind options _; do
	mkdir -p "$root$point"
	options=$(echo "$options" | tr , '\n' | grep -vE '^(rw|ro|nosuid|nodev|noexec|relatime|xattr|nsdelegate|memory_recursiveprot)$' | paste -sd ,)
	case $options in name=*) options=none,$options ;; esac
	mount -t "$kind" ${options:+-o "$options"} "$kind" "$root$point"
done <"$dir/hierarchies"
rm -rf "$root"/etc/systemd/system/*.wants
mkdir -p "$root/etc/systemd/system"
printf '[Unit]\nRequires=dbus.socket\nWants=dbus.service\n' >"$root/etc/systemd/system/davit-test.target"
mkdir "$root/outside"
cd "$root"
pivot_root . outside
umount -l /outside
exec env container=other /lib/systemd/systemd --system --unit=davit-test.target --log-target=console --show-status=0
ENTER
cat >"$dir/join.sh" <<'JOIN'
root=$1 bin=$2 dir=$3
shift 3
for hierarchy in "$@"; do echo $$ >"$hierarchy/cgroup.procs"; done
exec unshare --mount --pid --cgroup --uts --ipc --fork --kill-child sh "$dir/enter.sh" "$root" "$bin" "$dir"
JOIN
sh "$dir/join.sh" "$root" "$bin" "$dir" $(hierarchies | sed "s|\$|$parent|") >"$dir/systemd.log" 2>&1 </dev/null &
outer=$!
init() { cat "/proc/$outer/task/$outer/children"; }
wait_for() { # COMMAND...: until it succeeds, twenty seconds at most
	i=0
	until "$@" >/dev/null 2>&1; do
		i=$((i + 1))
		[ $i -lt 200 ] || return 1
		sleep 0.1
	done
}
inside() { nsenter -t $(init) -a env PATH="$bin:$PATH" DOCKER_HOST="unix://$dir/d.sock" DOCKER_CONFIG="$dir/config" "$@"; }
wait_for inside busctl status org.freedesktop.systemd1 || { echo "not ok systemd: does not answer"; tail -5 "$dir/systemd.log"; }
inside davitd --data-root "$dir/state/data" --exec-root /run/davit-test --pidfile /run/davit-test.pid -H "unix://$dir/d.sock" \
	--exec-opt native.cgroupdriver=systemd >"$dir/davitd.log" 2>&1 &
wait_for inside docker version || { echo "not ok davitd: does not answer"; tail -5 "$dir/davitd.log"; }
scope() { echo "davit-$(inside docker inspect -f '{{.Id}}' crane).scope"; }
limits() { # what the kernel has, of v1 or v2
	group=system.slice/$(scope)
	inside sh -c "cd /sys/fs/cgroup; cat pids/$group/pids.max memory/$group/memory.limit_in_bytes cpu/$group/cpu.cfs_quota_us $group/pids.max $group/memory.max $group/cpu.max 2>/dev/null" | paste -sd ' '
}
devices() { # memory itself is none of a container's devices
	inside docker exec crane sh -c 'mknod /tmp/mem c 1 1; head -c 1 /tmp/mem >/dev/null; echo x >/dev/null && echo usable' 2>&1 | paste -sd ' '
}
inside docker import "$image" busybox >/dev/null
check driver '^systemd$' inside docker info -f '{{.CgroupDriver}}'
check run '^hello$' inside docker run --rm busybox echo hello
check detach '^[0-9a-f]{64}$' inside docker run -d --name crane --userns host -m 64m --memory-swap 64m --cpus 0.5 --pids-limit 20 busybox sleep 1000
check unit '^active$' inside systemctl is-active "$(scope)"
check slice '^Slice=system.slice$' inside systemctl show -p Slice "$(scope)"
check limits '^20 67108864 50000( 100000)?$' limits
check devices '(Operation not permitted|can.t open).* usable$' devices
inside systemctl daemon-reload
check limits-after-reload '^20 67108864 50000( 100000)?$' limits
check devices-after-reload '(Operation not permitted|can.t open).* usable$' devices
check update '^crane$' inside docker update --pids-limit 30 --cpus 0.25 -m 80m --memory-swap 80m crane
inside systemctl daemon-reload
check updated '^30 83886080 25000( 100000)?$' limits
check exec '^0$' inside docker exec crane id -u
check terminal '^/dev/pts/' inside docker exec -t crane tty
check pause '^crane$' inside docker pause crane
check paused '^paused$' inside docker inspect -f '{{.State.Status}}' crane
check unpause '^crane$' inside docker unpause crane
check parent 'my.slice/my-own.slice/davit-' inside docker run --rm --cgroupns host --cgroup-parent my-own.slice busybox cat /proc/self/cgroup
check no-slice 'should be a valid slice named as "xxx.slice"' inside docker run --rm --cgroup-parent other busybox true
check remove '^crane$' inside docker rm -f crane
check nothing-left '^0$' sh -c "nsenter -t $(init) -a systemctl list-units --no-legend --type=scope | grep -c davit-"
inside sh -c 'kill $(cat /run/davit-test.pid)'
kill -9 $(init)
wait
