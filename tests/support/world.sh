#!/bin/bash
# A server and its clients, each in an own network namespace, with an own view of the file system.
#
# Run as the first process of new namespaces, so that its end is the end of everything in them:
#
#   unshare --mount --net --pid --fork --mount-proc --propagation private bash world.sh PIPEBAN
#
# It says `ready` and lives until its standard input ends. PIPEBAN (a binary) is found as
# /usr/bin/pipeban. Nothing of the machine is changed: /etc, /usr and /var are overlays whose
# upper half is memory, /run and /dev are new, the firewall is the namespace's.
#
#   server   203.0.113.1/24         2001:db8:1::1/64
#   router   203.0.113.2            2001:db8:1::2            (the clients' namespace; a gateway, never banned)
#   clients  203.0.113.128/25       2001:db8:1::64 to ::69   (in the server's networks)
#            198.51.100.0/24        2001:db8:a000::/36       (behind the router)
set -eu

world_files() {
    local dir
    mount -t tmpfs -o mode=0755 world /mnt
    touch /mnt/pipeban
    mount --bind "$1" /mnt/pipeban
    for dir in etc usr var; do
        mkdir /mnt/$dir /mnt/$dir.work
        mount -t overlay -o "lowerdir=/$dir,upperdir=/mnt/$dir,workdir=/mnt/$dir.work" world /$dir
    done
    mount -t tmpfs -o mode=0755 world /run
    mkdir -p /run/lock /run/netns /run/apache2
    chmod 1777 /run/lock

    mkdir /mnt/dev
    for dir in null zero full random urandom tty; do
        touch /mnt/dev/$dir
        mount --bind /dev/$dir /mnt/dev/$dir
    done
    mkdir /mnt/dev/shm
    chmod 1777 /mnt/dev/shm
    ln -s /proc/self/fd /mnt/dev/fd
    mount --rbind /mnt/dev /dev

    touch /usr/bin/pipeban
    mount --bind /mnt/pipeban /usr/bin/pipeban
    rm -rf /etc/pipeban /usr/share/pipeban /var/lib/pipeban
    rm -f /var/log/apache2/* /var/log/pipeban.log
    mkdir -p /etc/pipeban /var/log/apache2
}

world_network() {
    ip netns add clients
    ip link add server type veth peer name clients netns clients
    ip link set lo up
    ip address add 203.0.113.1/24 dev server
    ip address add 2001:db8:1::1/64 dev server nodad
    ip link set server up
    ip route add 198.51.100.0/24 via 203.0.113.2
    ip -6 route add 2001:db8:a000::/36 via 2001:db8:1::2

    # Any address of these networks is the clients' own: a test takes what it likes.
    ip netns exec clients sh -eu -c '
        ip link set lo up
        ip address add 203.0.113.2/24 dev clients
        ip address add 2001:db8:1::2/64 dev clients nodad
        echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind
        ip link set clients up
        ip route add local 198.51.100.0/24 dev lo
        ip route add local 203.0.113.128/25 dev lo
        ip -6 route add local 2001:db8:a000::/36 dev lo
        for host in 64 65 66 67 68 69; do ip address add 2001:db8:1::$host/64 dev clients nodad; done
    '
    # Who answers is known, and the link is up: the first packet of a test is not the one that finds out.
    ip -6 neigh replace 2001:db8:1::2 lladdr "$(ip netns exec clients ip -o link show clients | ether)" \
        nud permanent dev server
    ip netns exec clients ip -6 neigh replace 2001:db8:1::1 \
        lladdr "$(ip -o link show server | ether)" nud permanent dev clients
    for _ in $(seq 250); do
        if ip -o link show server | grep -q 'state UP' &&
            ip netns exec clients ip -o link show clients | grep -q 'state UP'; then
            return
        fi
        sleep 0.02
    done
}

ether() {
    sed 's/.*link\/ether \([0-9a-f:]*\).*/\1/'
}

# Web ports and a port that plays ssh are open, everything else is closed.
world_ufw() {
    ufw --force enable
    ufw allow 80/tcp
    ufw allow 443
    ufw allow 2222/tcp
}

# rsyslogd where it is installed; else a few lines of Perl, which every Debian has.
world_syslog() {
    local log=/var/log/world-syslog
    touch $log
    if [ $rsyslogd = yes ]; then
        cat >/etc/world-rsyslog.conf <<CONF
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="/dev/log" CreatePath="on")
template(name="line" type="string" string="%syslogfacility-text%.%syslogseverity-text% %syslogtag%%msg%\n")
*.* action(type="omfile" file="$log" template="line")
CONF
        rsyslogd -f /etc/world-rsyslog.conf -i /run/rsyslogd.pid
    else
        perl -MSocket -e '
            my $in;
            socket($in, AF_UNIX, SOCK_DGRAM, 0) and bind($in, sockaddr_un("/dev/log")) or die "/dev/log: $!";
            chmod 0666, "/dev/log";
            open(my $out, ">>", $ARGV[0]) or die; select($out); $| = 1;
            while (defined recv($in, my $line, 65536, 0)) { $line =~ s/^<\d+>(\w+ +\d+ \S+ )?//; print "$line\n"; }
        ' $log </dev/null >/dev/null &
        while [ ! -S /dev/log ]; do kill -0 $!; sleep 0.02; done
    fi
}

# Before the overlays, which do not show what a test has mounted over a file.
if [ -x /usr/sbin/rsyslogd ]; then rsyslogd=yes; else rsyslogd=no; fi
world_files "$1"
world_network
world_ufw >/var/log/world-ufw 2>&1 || { cat /var/log/world-ufw >&2; exit 1; }
world_syslog
echo ready
# Bash, as the first process, also buries the orphans of the namespace while it waits here.
while read -r _; do :; done
