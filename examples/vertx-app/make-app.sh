#!/bin/bash
# make-app.sh DIR: copy this build context to DIR and put the app's distribution in it, as the app's own
# build would: build/distributions/app-3.3.1.tar with the program and a library of some size.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(realpath -m "${1:?usage: make-app.sh DIR}")
mkdir -p "$dir/build/distributions" "$dir/docker/script"
cp "$here/Dockerfile" "$here/config.template.json" "$dir/"
install -m 755 "$here/docker/script/start.sh" "$dir/docker/script/start.sh"
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/app-3.3.1/bin" "$stage/app-3.3.1/lib"
install -m 755 "$here/app-3.3.1/bin/app" "$stage/app-3.3.1/bin/app"
{
	echo "library of 100,000 lines"
	seq 1 100000 | sed 's/$/ of the library/'
} >"$stage/app-3.3.1/lib/library.txt"
tar --numeric-owner --owner=0 --group=0 --sort=name --mtime=@1700000000 -C "$stage" -cf "$dir/build/distributions/app-3.3.1.tar" app-3.3.1
