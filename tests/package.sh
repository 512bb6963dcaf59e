#!/bin/bash
# The package in fresh Debian systems: tests/package.sh DEB NEXT_DEB SUITE...
#
# Each SUITE (bookworm, trixie) is installed by debootstrap, once, below target/roots. The test runs in
# namespaces, on a copy in memory: installation, an attack and its ban, the upgrade to NEXT_DEB under
# load without a lost line, removal, a removal that is refused, and purge. Systemd does not run there.
set -euo pipefail

attack=/cgi-bin/.%2e/.%2e/.%2e/.%2e/.%2e/.%2e/bin/sh
visitor=203.0.113.8
log=/var/log/apache2

say() { printf '== %s\n' "$*"; }
die() { printf 'package: %s\n' "$*" >&2; exit 1; }

# until_true WHAT COMMAND...: waits for a minute at most.
until_true() {
    local what=$1 tries=600
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || die "not after a minute: $what"
        sleep 0.1
    done
}
no()      { ! "$@"; }
request() { ip netns exec clients curl -sS --max-time 2 --path-as-is --interface "$1" -o /dev/null "http://203.0.113.1$2"; }
install() { apt-get install -y "$1" >/tmp/apt 2>&1 || { cat /tmp/apt; die "cannot install $1"; }; }
remove()  { apt-get "$1" -y pipeban >/tmp/apt 2>&1; }
engine()  { pipeban status --json | sed -n 's/.*"engine":{"pid":\([0-9]*\).*/\1/p'; }
replaced() { [ "$(engine)" ] && [ "$(engine)" != "$1" ]; }
old_program() { readlink /proc/[0-9]*/exe | grep -q '^/usr/bin/pipeban (deleted)'; }
must_ban() {
    request "$1" "$attack" || true
    until_true "the ban of $1" pipeban status "$1"
    until_true "packets of $1 are dropped" no request "$1" /
}
reload_apache() { apache2ctl -t 2>/dev/null; apache2ctl graceful; until_true "Apache answers" request $visitor /; }
load() {
    while [ ! -e /tmp/enough ]; do
        ip netns exec clients ab -q -n 200 -c 4 -B $visitor http://203.0.113.1/server-status >/dev/null 2>&1 || true
    done
}
# Apache writes one log itself, pipeban the other.
lines() { grep -c "$visitor.*$1" "$log/$2.log"; }
same()  { [ "$(lines '/server-status.* 403 ' access)" = "$(lines AH01630 error)" ]; }

in_the_root() {
    export DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    ip netns add clients
    ip link set lo up
    ip link add server type veth peer name clients netns clients
    ip address add 203.0.113.1/24 dev server
    ip link set server up
    ip -n clients link set lo up
    ip -n clients link set clients up
    for host in 7 8 9; do ip -n clients address add 203.0.113.$host/24 dev clients; done
    ufw allow 80/tcp >/dev/null
    ufw --force enable >/dev/null
    echo hello >/var/www/html/index.html
    echo 'ServerName www.example.org' >/etc/apache2/conf-enabled/name.conf
    apache2ctl start
    until_true "Apache answers" request $visitor /

    say "install"
    install /first.deb
    getent passwd pipeban >/dev/null || die "the user is missing"
    ! grep -rq pipeban /etc/apache2/*-enabled || die "the installation has changed Apache"
    [ "$(pipeban setup >/dev/null; echo $?)" = 1 ] || die "setup has nothing to do"
    pipeban setup --write >/dev/null
    reload_apache
    until_true "the engine answers" pipeban status

    say "attack and ban"
    must_ban 203.0.113.7
    until_true "ufw shows the ban" grep -q 203.0.113.7 <(ufw status)
    request $visitor /
    pipeban allow $visitor >/dev/null

    say "upgrade under load"
    load &
    until_true "load" [ -s $log/error.log ]
    old=$(engine)
    install /next.deb
    until_true "a new engine" replaced "$old"
    ! request 203.0.113.7 / 2>/dev/null || die "the ban did not survive the upgrade"
    must_ban 203.0.113.9
    reload_apache
    until_true "the new version runs everywhere" no old_program
    touch /tmp/enough
    wait
    until_true "each request has its line in the error log" same
    [ "$(lines AH01630 error)" -ge 400 ] || die "no load: $(lines AH01630 error) lines"
    echo "   $(lines AH01630 error) lines, 0 lost"

    say "remove"
    remove remove || { cat /tmp/apt; die "cannot remove"; }
    [ ! -e /usr/bin/pipeban ] || die "the program is still there"
    ! grep -r pipeban /etc/apache2/*-enabled || die "Apache's configuration still names pipeban"
    until_true "nothing of pipeban runs" no pgrep -x pipeban
    reload_apache
    request 203.0.113.7 /
    ! ufw status | grep pipeban || die "ufw has rules of pipeban"

    say "remove refuses while another file names the program"
    install /next.deb
    pipeban setup --write >/dev/null
    reload_apache
    until_true "the engine answers" pipeban status
    request 203.0.113.7 / || die "a ban from before the removal is in force again"
    mkdir /etc/apache2/more
    echo 'CustomLog "|/usr/bin/pipeban log access" combined' >/etc/apache2/more/spare.conf
    ! remove remove || die "the program was removed"
    grep -q more/spare.conf /tmp/apt || { cat /tmp/apt; die "no reason is given"; }
    [ -x /usr/bin/pipeban ] || die "the program is gone"
    reload_apache

    say "purge"
    rm -r /etc/apache2/more
    remove purge || { cat /tmp/apt; die "cannot purge"; }
    left=$(find /etc /usr /var /run -xdev -iname '*pipeban*' ! -path '/var/lib/dpkg/*')
    [ -z "$left" ] || die "purge leaves $left"
    until_true "nothing of pipeban runs" no pgrep -x pipeban
    reload_apache
    apache2ctl stop
}

# ------------------------------------------------------------------ outside, in new namespaces

enter() {
    local root=$1 first=$2 next=$3 device
    mount -t tmpfs -o mode=0755 memory /mnt
    mkdir /mnt/debian /mnt/upper /mnt/work
    mount -t overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" package /mnt/debian
    cp "$first" /mnt/debian/first.deb
    cp "$next" /mnt/debian/next.deb
    cp "$0" /mnt/debian/package.sh
    mount -t proc proc /mnt/debian/proc
    mount -t sysfs sysfs /mnt/debian/sys
    for device in null zero full random urandom tty; do
        touch /mnt/debian/dev/$device
        mount --bind /dev/$device /mnt/debian/dev/$device
    done
    mkdir -p /mnt/debian/dev/pts
    mount -t devpts -o newinstance,ptmxmode=0666 devpts /mnt/debian/dev/pts
    exec chroot /mnt/debian bash /package.sh in_the_root
}

case $1 in
enter | in_the_root) "$@"; exit ;;
esac
first=$(realpath "$1") next=$(realpath "$2")
shift 2
roots=$(cd "$(dirname "$0")/.." && pwd)/target/roots
mkdir -p "$roots"
for suite; do
    if [ ! -e "$roots/$suite/etc/apache2/apache2.conf" ]; then
        say "debootstrap $suite"
        rm -rf "${roots:?}/$suite" "$roots/$suite.new"
        debootstrap --variant=minbase \
            --include=adduser,apache2,ca-certificates,curl,iproute2,nftables,procps,ufw \
            "$suite" "$roots/$suite.new" >"$roots/$suite.log" || { tail -n 5 "$roots/$suite.log"; exit 1; }
        mv "$roots/$suite.new" "$roots/$suite"
    fi
    say "$suite"
    unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private \
        bash "$0" enter "$roots/$suite" "$first" "$next"
done
