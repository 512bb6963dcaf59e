#!/bin/bash
# Builds the Debian package of HEAD twice, in directories of different names, and compares the bytes.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for copy in one another-directory; do
    git clone --quiet . "$work/$copy"
    make --no-print-directory -C "$work/$copy" deb
done
cd "$work"
one=(one/target/deb/*.deb) another=(another-directory/target/deb/*.deb)
sha256sum "${one[0]}" "${another[0]}"
cmp "${one[0]}" "${another[0]}"
echo "both builds are the same"
