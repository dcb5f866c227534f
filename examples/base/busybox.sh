#!/bin/bash
# busybox.sh OUT.tar: a root file system of one static busybox with a link for each applet.
set -euo pipefail
out=$(realpath -m "${1:?usage: busybox.sh OUT.tar}")
busybox=$(command -v busybox) || { echo "busybox.sh: install busybox-static first" >&2; exit 1; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
mkdir -p "$dir"/{bin,dev,etc,home,proc,root,sys,tmp,usr/bin,usr/sbin,var/www}
chmod 1777 "$dir/tmp"
chmod 700 "$dir/root"
install -m 755 "$busybox" "$dir/bin/busybox"
for applet in $("$busybox" --list); do
	[ "$applet" = busybox ] || ln -s /bin/busybox "$dir/bin/$applet"
done
ln -s /bin/sh "$dir/usr/bin/sh"
ln -s /bin/env "$dir/usr/bin/env"
printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$dir/etc/passwd"
printf 'root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nnogroup:x:65534:\n' >"$dir/etc/group"
tar --numeric-owner --owner=0 --group=0 --sort=name --mtime=@1700000000 -C "$dir" -cf "$out" .
