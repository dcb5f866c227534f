#!/bin/bash
# debian-layer.sh BASE.tar OUT.tar PACKAGE...: what installing the packages adds to the Debian in
# BASE.tar, as a tar to ADD on top of it. Nothing is started; apt's lists and caches stay outside.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: debian-layer.sh BASE.tar OUT.tar PACKAGE..." >&2; exit 2; }
if [ "${DAVIT_LAYER_NS:-}" != 1 ]; then
	DAVIT_LAYER_NS=1 exec unshare -m --propagation private "$0" "$@"
fi
base=$(realpath "$1") out=$(realpath -m "$2")
shift 2
work=$(mktemp -d)
trap 'umount -R "$work/merged" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir "$work"/{lower,upper,work,merged}
tar -C "$work/lower" --numeric-owner -xpf "$base"
mount -t overlay overlay -o "lowerdir=$work/lower,upperdir=$work/upper,workdir=$work/work" "$work/merged"
root=$work/merged
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/var/lib/apt/lists"
mount -t tmpfs tmpfs "$root/var/cache/apt"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
printf '#!/bin/sh\nexit 101\n' >"$root/tmp/policy-rc.d"
chmod 755 "$root/tmp/policy-rc.d"
touch "$root/usr/sbin/policy-rc.d"
mount --bind "$root/tmp/policy-rc.d" "$root/usr/sbin/policy-rc.d"
[ -e "$root/etc/resolv.conf" ] || touch "$root/etc/resolv.conf"
[ ! -s /etc/resolv.conf ] || mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
rm -rf "$root/etc/apt/sources.list.d" "$root/etc/apt/sources.list"
mkdir -p "$root/etc/apt/sources.list.d"
cp /etc/apt/sources.list.d/debian.sources "$root/etc/apt/sources.list.d/" 2>/dev/null || cp /etc/apt/sources.list "$root/etc/apt/"
cat /etc/apt/apt.conf.d/* >"$root/tmp/apt.conf" 2>/dev/null || true # a proxy or check that this machine's apt needs
env -u DAVIT_LAYER_NS APT_CONFIG=/tmp/apt.conf DEBIAN_FRONTEND=noninteractive chroot "$root" sh -c '
	apt-get -qq update >/dev/null && apt-get -qq install -y --no-install-recommends \
	-o DPkg::Options::=--path-exclude=/usr/share/man/* -o DPkg::Options::=--path-exclude=/usr/share/doc/* -o DPkg::Options::=--path-exclude=/usr/share/locale/* "$@" >/tmp/log 2>&1 || { tail -20 /tmp/log >&2; exit 1; }' sh "$@"
umount -R "$root"
# Files left are the packages' own. Deletions do not occur: installing only adds and replaces.
find "$work/upper" -type c -delete
rm -rf "$work"/upper/{usr/sbin/policy-rc.d,etc/resolv.conf,var/log/apt,var/log/dpkg.log,var/log/alternatives.log,var/log/bootstrap.log}
tar -C "$work/upper" --numeric-owner --sort=name -cf "$out" .
