#!/bin/bash
# Installs packages whose program or file is missing: tests/prepare.sh PROGRAM=PACKAGE...
# Starts no service. Without root or apt-get it says what is missing, and that is no failure.
set -eu

missing=()
for need in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${need%%=*}" >/dev/null || [ -e "${need%%=*}" ] ||
        missing+=("${need#*=}")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "MISSING: ${missing[*]} (as root on a Debian they would be installed now)" >&2
    exit 0
fi

# Packages of services ask this file whether they may start them.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
echo "installing ${missing[*]}" >&2
{ apt-get -qq update && apt-get -qq install -y --no-install-recommends "${missing[@]}"; } </dev/null >/dev/null || {
    echo "MISSING: ${missing[*]} (apt-get could not install them)" >&2
}
