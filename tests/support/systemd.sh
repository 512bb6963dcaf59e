#!/bin/bash
# The shipped unit and its drop-in under a real systemd: tests/support/systemd.sh PIPEBAN
#
# Boots systemd in new namespaces, on an overlay of this machine whose upper half is memory. There it
# runs the unit, then the drop-in for the nftables back end alone: ban, hooks, kill, reload, stop.
# Nothing of this machine is changed. Prints `passed` at the end.
#
#   tests/support/systemd.sh PIPEBAN unit|drop-in TESTS ARGUMENT...
#
# Runs a program of tests with these arguments as a service with the restrictions of the unit, or of
# the unit and its drop-in. Exit status 77: this machine cannot boot systemd in namespaces.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
cgroups=/sys/fs/cgroup
attack='[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 1:tid 1] [client %s:49108] AH10244: invalid URI path (/cgi-bin/../bin/sh)\n'

die() { printf 'systemd: %s\n' "$*"; systemctl status --no-pager pipeban 2>&1 || true; exit 1; }
until_true() {
    local what=$1 tries=300
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || die "not after 30 s: $what"
        sleep 0.1
    done
}
show()    { systemctl show pipeban -p "$1" --value; }
process() { sed -n "s/^$1:[[:space:]]*//p" "/proc/$(show MainPID)/status"; }
in_nft()  { nft list table inet pipeban | grep -q "$1"; }
must_ban() {
    # shellcheck disable=SC2059
    printf "$attack" "$1" | pipeban log error >/dev/null
    until_true "pipeban's table holds $1" in_nft "$1"
}
# A ban survives a kill; systemd starts the engine again.
killed() {
    local before=$(show MainPID)
    systemctl kill -s KILL pipeban
    until_true "another engine" sh -c "pipeban status --json | grep -q '\"engine\":{\"pid\":' && [ \$(systemctl show pipeban -p MainPID --value) != $before ]"
    in_nft "$1" || die "the ban of $1 is gone"
}

trial() {
    make --no-print-directory --silent -C "$here" install DESTDIR=/tmp/tree BIN=/tmp/pipeban >/dev/null
    cp -a /tmp/tree/. /
    systemd-sysusers pipeban.conf
    adduser --quiet --system --no-create-home --home /nonexistent pipeban-engine 2>/dev/null
    # A hook that is set-gid, as sendmail is, and one outside of the unit's restrictions.
    install -g games -m 2755 /usr/bin/id /usr/local/bin/set-gid
    printf '#!/bin/sh\n{ /usr/local/bin/set-gid; grep Seccomp: /proc/self/status; } >/var/cache/$1 2>&1\n' >/usr/local/bin/hook
    chmod 755 /usr/local/bin/hook
    chmod 1777 /var/cache
    ip link set lo up
    ufw --force enable >/dev/null

    cat >/etc/pipeban/conf.d/trial.toml <<TEXT
[syslog]
target = "none"
[jails.apache-cgitraversal]
on_ban = ["/usr/local/bin/hook", "inside"]
[jails.apache-attacks-error]
on_ban = ["/usr/bin/systemd-run", "--quiet", "--collect", "/usr/local/bin/hook", "outside"]
TEXT
    systemctl start pipeban || die "cannot start"
    [ "$(process CapEff)" = 00000000000031c1 ] || die "capabilities $(process CapEff)"
    must_ban 198.51.100.7
    until_true "ufw has the rule" sh -c "ufw status | grep -q 198.51.100.7"
    until_true "the hook inside" grep -q Seccomp: /var/cache/inside
    until_true "the hook outside" grep -q Seccomp: /var/cache/outside
    grep -q 'egid=.*games' /var/cache/inside || die "set-gid does not work: $(cat /var/cache/inside)"
    grep -q 'Seccomp:.*2' /var/cache/inside || die "the hook is not confined"
    grep -q 'Seccomp:.*0' /var/cache/outside || die "the hook is confined: $(cat /var/cache/outside)"
    killed 198.51.100.7
    systemctl reload pipeban || die "cannot reload"
    systemctl stop pipeban
    in_nft 198.51.100.7 || die "a stop lifts bans"

    printf '[firewall]\nbackend = "nftables"\n[syslog]\ntarget = "none"\nlog_file = ""\n' >/etc/pipeban/conf.d/trial.toml
    install -D -m 0644 /usr/share/pipeban/examples/systemd/nftables-only.conf \
        /etc/systemd/system/pipeban.service.d/nftables-only.conf
    systemctl daemon-reload
    systemctl start pipeban || die "cannot start with the drop-in"
    [ "$(process CapEff)" = 0000000000001000 ] || die "capabilities $(process CapEff)"
    [ "$(show User)" = pipeban-engine ] && [ "$(process Uid | cut -f1)" != 0 ] || die "it is root"
    [ "$(stat -c '%a %U %G' /run/pipeban/engine.sock)" = "660 pipeban-engine adm" ] || die "the socket"
    setpriv --reuid=nobody --regid=adm --clear-groups test -r /var/lib/pipeban &&
        die "adm can open, and so lock, the state directory"
    in_nft 198.51.100.7 || die "the ban was lifted"
    must_ban 198.51.100.8
    killed 198.51.100.8
    systemctl reload pipeban || die "cannot reload"
    wrong=$(pipeban status | grep -i "cannot\|permission"; pipeban doctor |
        grep -E '^(broken|warning) +(owners|socket|off|database|table|cutting|proof)') || true
    [ -z "$wrong" ] || die "$wrong"
    pipeban off >/dev/null && pipeban on >/dev/null || die "off and on"
    until_true "the bans are back" in_nft 198.51.100.8
    systemctl stop pipeban
    echo passed
}

# suite unit|drop-in TESTS ARGUMENT...: the settings of the unit hold, but for what is run and how.
suite() {
    local kind=$1 unit=/etc/systemd/system/suite.service
    shift
    install -D "$here/config/systemd/pipeban.service" $unit
    if [ "$kind" = drop-in ]; then
        adduser --quiet --system --no-create-home --home /nonexistent pipeban-engine 2>/dev/null
        install -D -m 0644 "$here/config/examples/systemd/nftables-only.conf" $unit.d/1.conf
    fi
    # The program may be below a directory that the unit hides.
    mkdir -p $unit.d
    cat >$unit.d/2.conf <<TEXT
[Service]
Type=oneshot
Restart=no
TimeoutStartSec=infinity
KillMode=control-group
ExecStart=
ExecStart=$(printf '"%s" ' "$@")
ExecReload=
ExecStopPost=
ProtectHome=tmpfs
BindReadOnlyPaths=$here
StandardOutput=append:/tmp/output
StandardError=append:/tmp/output
TEXT
    ip link set lo up
    systemctl daemon-reload
    systemctl start suite && echo passed
}

boot() {
    local root=/mnt/root device
    mount -t tmpfs -o mode=0755 memory /mnt
    mkdir /mnt/upper /mnt/work $root
    mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work systemd $root
    cp "$1" /mnt/pipeban
    mount -t tmpfs -o mode=0755 run $root/run
    mount -t tmpfs -o mode=1777 tmp $root/tmp
    mount -t proc proc $root/proc
    mount -t sysfs -o ro sys $root/sys
    mount -t tmpfs -o mode=0755 cgroups $root/sys/fs/cgroup
    if [ -d $cgroups/unified ]; then
        mkdir $root/sys/fs/cgroup/systemd $root/sys/fs/cgroup/unified
        mount -t cgroup -o none,name=systemd cgroup $root/sys/fs/cgroup/systemd
        mount -t cgroup2 cgroup $root/sys/fs/cgroup/unified
    else
        mount -t cgroup2 cgroup $root/sys/fs/cgroup
    fi
    mount -t tmpfs -o mode=0755 dev $root/dev
    for device in null zero full random urandom tty; do
        touch $root/dev/$device
        mount --bind /dev/$device $root/dev/$device
    done
    ln -s /proc/self/fd $root/dev/fd
    mkdir $root/dev/pts $root/dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666 devpts $root/dev/pts
    ln -s pts/ptmx $root/dev/ptmx
    rm -rf $root/etc/systemd/system/*.wants $root/etc/pipeban $root/var/lib/pipeban $root/var/log/pipeban.log
    echo 0123456789abcdef0123456789abcdef >$root/etc/machine-id
    cp /mnt/pipeban $root/tmp/pipeban
    touch $root/tmp/output
    mount --bind "$2" $root/tmp/output
    cat >$root/etc/systemd/system/trial.service <<TEXT
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/bash $here/tests/support/systemd.sh ${*:3}
StandardOutput=append:/tmp/output
StandardError=append:/tmp/output
ExecStopPost=/bin/systemctl --force --force poweroff
TEXT
    export container=other
    cd $root
    pivot_root . mnt
    umount -l /mnt
    exec chroot . /lib/systemd/systemd --unit=trial.service --show-status=no --log-target=console
}

case $1 in
boot | trial | suite) "$@"; exit ;;
esac
binary=$(realpath "$1") output=$(mktemp)
shift
if [ $# = 0 ]; then set trial; else set suite "$@"; fi
# A group of control groups for this systemd, in each hierarchy that it uses.
groups=($cgroups/pipeban-test.$$)
if [ -d $cgroups/unified ]; then
    groups=($cgroups/systemd/pipeban-test.$$ $cgroups/unified/pipeban-test.$$)
fi
trap 'rm -f "$output" "$output.boot"; rmdir "${groups[@]}" 2>/dev/null || true' EXIT
(
    mkdir "${groups[@]}"
    for group in "${groups[@]}"; do echo $BASHPID >"$group/cgroup.procs"; done
    exec timeout -s KILL 900 unshare --mount --net --pid --ipc --uts --cgroup --fork --kill-child \
        --propagation private bash "$0" boot "$binary" "$output" "$@"
) >"$output.boot" 2>&1 || true
cat "$output"
grep -qx passed "$output" && exit
cat "$output.boot"
[ -s "$output" ] && exit 1 || exit 77
