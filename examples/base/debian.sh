#!/bin/bash
# debian.sh OUT.tar: a small Debian with apt, of the release that this machine's apt sources name.
set -euo pipefail
out=$(realpath -m "${1:?usage: debian.sh OUT.tar}")
command -v mmdebstrap >/dev/null || { echo "debian.sh: install mmdebstrap first" >&2; exit 1; }
. /etc/os-release
mmdebstrap --quiet --variant=apt --include=ca-certificates \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--customize-hook='rm -rf "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/* "$1"/var/log/* "$1"/etc/resolv.conf "$1"/etc/hostname' \
	"${DEBIAN_RELEASE:-$VERSION_CODENAME}" "$out"
