# What must hold on a kernel with cgroup v2 alone. Each check prints "ok" or "not ok" and why.
check() { # name, expected pattern, command...
	name=$1 pattern=$2
	shift 2
	out=$("$@" 2>&1)
	if echo "$out" | grep -qE "$pattern"; then echo "ok $name"; else echo "not ok $name: got: $out"; failed=1; fi
}
failed=0
uname -r
davitd --data-root /var/lib/davit --exec-root /run/davit -H unix:///run/davit.sock >/tmp/davitd.log 2>&1 &
export DAVIT_HOST=unix:///run/davit.sock
i=0
until davit version >/dev/null 2>&1; do
	i=$((i + 1))
	[ $i -lt 200 ] || { echo "not ok engine: does not answer"; cat /tmp/davitd.log; exit 1; }
	sleep 0.1
done
davit import /busybox.tar busybox >/dev/null || exit 1
check info 'CgroupVersion.*2|Cgroup Version: 2' davit info
check run '^hello$' davit run --rm busybox echo hello
check exit-code '^7$' sh -c 'davit run --rm busybox sh -c "exit 7"; echo $?'
check user-namespace '^ +0 +[1-9][0-9]+ ' davit run --rm busybox cat /proc/self/uid_map
check layer-owner '^0:0$' sh -c 'davit run --name oo busybox touch /made; stat -c %u:%g $(find /var/lib/davit -name made | head -1); davit rm oo >/dev/null'
check memory-limit '^33554432$' davit run --rm -m 32m busybox cat /sys/fs/cgroup/memory.max
check out-of-memory '^137 true$' sh -c 'davit run --name hog -m 32m --memory-swap 32m busybox dd if=/dev/zero of=/dev/null bs=64M count=1 >/dev/null 2>&1; echo $? $(davit inspect -f "{{.State.OOMKilled}}" hog); davit rm hog >/dev/null'
check cpu-limit '^50000 100000$' davit run --rm --cpus 0.5 busybox cat /sys/fs/cgroup/cpu.max
check pids-limit 'fork' davit run --rm --pids-limit 20 busybox sh -c 'i=0; while [ $i -lt 40 ]; do sleep 1 & i=$((i+1)); done; wait'
check devices 'refused' davit run --rm --userns=host --cap-add MKNOD busybox sh -c 'mknod /tmp/vda b 254 0 && dd if=/tmp/vda of=/dev/null count=1 2>/dev/null || echo refused'
check pause 'paused' sh -c 'davit run -d --name pp busybox sleep 1000 >/dev/null; davit pause pp >/dev/null; davit inspect -f "{{.State.Status}}" pp; cat /sys/fs/cgroup/davit/*/cgroup.freeze; davit unpause pp >/dev/null'
check exec '^in$' davit exec pp echo in
check stats '^pp [0-9.]+%' davit stats --no-stream --format '{{.Name}} {{.CPUPerc}}' pp
check update '^67108864$' sh -c 'davit update -m 64m --memory-swap 64m pp >/dev/null; davit exec pp cat /sys/fs/cgroup/memory.max'
check survive '^in$' sh -c 'kill -9 $(pidof davitd); davitd --data-root /var/lib/davit --exec-root /run/davit -H unix:///run/davit.sock >>/tmp/davitd.log 2>&1 & i=0; until davit version >/dev/null 2>&1; do i=$((i+1)); [ $i -lt 100 ] || break; sleep 0.1; done; davit exec pp echo in'
check remove '^pp$' davit rm -f pp
check shared-memory '^shared$' sh -c 'davit run -d --name shm --ipc shareable busybox sleep 1000 >/dev/null; davit run --rm --ipc container:shm busybox sh -c "echo shared >/dev/shm/x"; davit exec shm cat /dev/shm/x; davit rm -f shm >/dev/null'
check bind-tmpfs '^bound$' sh -c 'mkdir -p /tmp/bind; echo bound >/tmp/bind/x; davit run --rm -v /tmp/bind:/bind busybox cat /bind/x'
check bind-ext4 '^0:0$' sh -c 'mkdir -p /bind; davit run --rm -v /bind:/bind busybox touch /bind/made; stat -c %u:%g /bind/made'
check port 'page' sh -c 'davit run -d --name ww -p 8080:80 busybox sh -c "echo page >/tmp/index.html; httpd -f -p 80 -h /tmp" >/dev/null; i=0; until wget -qO- http://127.0.0.1:8080/index.html 2>/dev/null; do i=$((i+1)); [ $i -lt 50 ] || break; sleep 0.1; done'
check remove-web '^ww$' davit rm -f ww
check privileged '^0 +0 +4294967295|^ +0 +0 +4294967295' davit run --rm --privileged busybox cat /proc/self/uid_map
i=0
while [ -n "$(find /sys/fs/cgroup/davit -mindepth 1 -type d 2>/dev/null)" ] && [ $i -lt 50 ]; do i=$((i + 1)); sleep 0.1; done
check nothing-left '^$' find /sys/fs/cgroup/davit -mindepth 1 -type d
[ $failed = 0 ] || tail -20 /tmp/davitd.log
exit $failed
