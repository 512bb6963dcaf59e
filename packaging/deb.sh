#!/bin/bash
# Builds the Debian package: packaging/deb.sh PIPEBAN VERSION DIRECTORY. What it installs is what
# `make install` installs. The same inputs give the same bytes.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

binary=$(realpath "$1") version=$2 directory=$3
architecture=$(dpkg --print-architecture)
maintainer="${DEBFULLNAME:-$(git log -1 --format=%an)} <${DEBEMAIL:-$(git log -1 --format=%ae)}>"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
doc=$tree/usr/share/doc/pipeban

make --no-print-directory --silent install DESTDIR="$tree" BIN="$binary"
install -d "$doc" "$tree/DEBIAN" "$tree/usr/share/lintian/overrides"
{ cat packaging/debian/copyright; sed '1,4d; s/^$/./; s/^/ /' LICENSE-MIT; } >"$doc/copyright"
install -m 0644 packaging/debian/lintian-overrides "$tree/usr/share/lintian/overrides/pipeban"
gzip -9n <CHANGELOG.md >"$doc/changelog.gz"
gzip -9n >"$doc/changelog.Debian.gz" <<TEXT
pipeban ($version) unstable; urgency=medium

  * The changes are in changelog.gz.

 -- $maintainer  $(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
TEXT
gzip -9n "$tree"/usr/share/man/man*/*

# maintainer_script NAME WHEN FILE: does what FILE does, if dpkg calls it with the word WHEN.
maintainer_script() {
    { printf '#!/bin/sh\nset -e\n[ "$1" = %s ] || exit 0\n' "$2"; tail -n +2 "$3"; } >"$tree/DEBIAN/$1"
    chmod 0755 "$tree/DEBIAN/$1"
}
maintainer_script postinst configure packaging/after-install
maintainer_script prerm remove packaging/before-uninstall
install -m 0755 packaging/debian/postrm "$tree/DEBIAN/"
(cd "$tree" && find etc -type f -printf '/%p\n' | LC_ALL=C sort >DEBIAN/conffiles)

# dpkg-shlibdeps reads a source package's control file.
mkdir "$work/debian"
printf 'Source: pipeban\n\nPackage: pipeban\nArchitecture: any\n' >"$work/debian/control"
libraries=$(cd "$work" && dpkg-shlibdeps -O "$tree/usr/bin/pipeban" | sed -n 's/^shlibs:Depends=//p')
cat >"$tree/DEBIAN/control" <<TEXT
Package: pipeban
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -k --apparent-size -s --exclude=DEBIAN "$tree" | cut -f1)
Depends: $libraries, adduser
Recommends: apache2
Suggests: logrotate, ufw
Section: net
Priority: optional
Description: piped logger for Apache that bans attackers
 Apache pipes its logs through pipeban, which writes them unchanged and
 matches each line against jails. A client that breaks the rule of a jail is
 banned within milliseconds, by pipeban's nftables table and, where ufw is
 active, by ufw rules. Bans are logged to syslog and survive restarts.
 .
 It reads the filters of fail2ban. Installation does not change Apache:
 "pipeban setup" shows the changes, "pipeban setup --write" makes them.
TEXT
(cd "$tree" && find etc usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
find "$tree" -newermt "@$SOURCE_DATE_EPOCH" -print0 | xargs -0r touch --no-dereference --date="@$SOURCE_DATE_EPOCH"
mkdir -p "$directory"
dpkg-deb --root-owner-group -Zxz --build "$tree" "$directory/pipeban_${version}_$architecture.deb"
