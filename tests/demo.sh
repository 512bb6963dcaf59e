#!/bin/bash
# The tutorial's journey, for people: tests/demo.sh PIPEBAN
#
# As root: a real Apache, ufw and syslog on a server of its own, and clients that attack it, all in
# namespaces that end with this script. Without root: the same log lines in a dry run.
set -eu

binary=$(realpath "${1:-target/release/pipeban}")
here=$(cd "$(dirname "$0")" && pwd)
attacker=198.51.100.7
visitor=198.51.100.8
attacker6=2001:db8:a000::7
server=203.0.113.1
server6=2001:db8:1::1
attack=/cgi-bin/.%2e/.%2e/.%2e/.%2e/.%2e/.%2e/bin/sh

bold='' cyan='' plain=''
if [ -t 1 ]; then bold=$'\033[1m' cyan=$'\033[36m' plain=$'\033[0m'; fi
say()  { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$cyan" "$*" "$plain"; }
die()  { printf '\ndemo: %s\n' "$*" >&2; exit 1; }

# wait_for WHAT COMMAND...: until it succeeds, 20 seconds at most.
wait_for() {
    local what=$1 tries=400
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || die "not after 20 s: $what"
        sleep 0.05
    done
}

jail_of_the_tutorial() {
    cat <<'CONF'
[jails.apache-cgitraversal]
enabled  = true
log      = "error"
filter   = "apache-cgitraversal"
maxretry = 1
bantime  = "365d"
CONF
}

filter_of_the_tutorial() {
    cat <<'CONF'
[Definition]
failregex = \[client <HOST>:\d+\] AH10244: invalid URI path \(.*cgi-bin.*bin/sh.*
ignoreregex =
CONF
}

missing() {
    local program
    [ "$(id -u)" -eq 0 ] || echo "root"
    for program in apache2 ufw ip unshare nsenter; do
        PATH=$PATH:/usr/sbin:/sbin command -v $program >/dev/null || echo $program
    done
}

# What a demonstration with a real Apache lacks, such as "root, ufw".
needed() { missing | paste -sd, | sed 's/,/, /g'; }

# ---------------------------------------------------------------------------------- as root

world_pid=
world_fifo=
scratch=

clean_up() {
    # The world's first process reads this: its end is the end of everything in there.
    exec 9>&- || true
    [ -z "$world_pid" ] || wait "$world_pid" || true
    [ -z "$scratch" ] || rm -rf "$scratch"
}

on_server()  { nsenter --target "$world_pid_inside" --mount --net --pid -- "$@" 9>&-; }
on_clients() { nsenter --target "$world_pid_inside" --mount --pid -- ip netns exec clients "$@" 9>&-; }

# request FROM SERVER PATH: the first line of the answer. The path goes out as it is written here.
request() {
    on_clients perl -MSocket -e '
        my ($from, $to, $path) = @ARGV;
        my $six = $to =~ /:/;
        socket(my $s, $six ? AF_INET6 : AF_INET, SOCK_STREAM, 0) or die;
        my $at = sub { my ($port, $a) = @_;
            $six ? pack_sockaddr_in6($port, Socket::inet_pton(AF_INET6, $a)) : pack_sockaddr_in($port, inet_aton($a)) };
        bind($s, $at->(0, $from)) or die "bind: $!\n";
        $SIG{ALRM} = sub { print "no answer: the packets are dropped\n"; exit 1 };
        alarm 2;
        connect($s, $at->(80, $to)) or do { print "no connection: $!\n"; exit 1 };
        syswrite($s, "GET $path HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\n\r\n");
        my $line = <$s>;
        print defined $line ? $line : "the server has cut the connection\n";
    ' "$@" | tr -d '\r'
}

# One rule for tcp and one for udp.
in_ufw() { [ "$(on_server ufw status | grep -c "$1")" -eq 2 ]; }

with_a_real_apache() {
    say "A server and its clients, in namespaces; ufw is active, ports 80, 443 and 2222 are open"
    scratch=$(mktemp -d)
    world_fifo=$scratch/fifo
    mkfifo "$world_fifo"
    trap clean_up EXIT
    unshare --mount --net --pid --fork --mount-proc --propagation private \
        bash "$here/support/world.sh" "$binary" <"$world_fifo" >"$scratch/said" 2>&1 &
    world_pid=$!
    exec 9>"$world_fifo"
    local tries=400
    until grep -qs '^ready$' "$scratch/said"; do
        tries=$((tries - 1))
        if [ $tries -eq 0 ] || ! kill -0 "$world_pid" 2>/dev/null; then
            die "the namespaces did not come up: $(cat "$scratch/said")"
        fi
        sleep 0.05
    done
    world_pid_inside=$(cat "/proc/$world_pid/task/$world_pid/children")
    world_pid_inside=${world_pid_inside// /}
    local root=/proc/$world_pid_inside/root
    echo "server $server and $server6; attacker $attacker and $attacker6; visitor $visitor"

    say "The tutorial's jail, with the tutorial's filter in fail2ban's own format"
    mkdir -p "$root/etc/pipeban/filters.d" "$root/etc/apache2" "$root/var/site/htdocs"
    jail_of_the_tutorial | tee "$root/etc/pipeban/pipeban.toml"
    echo
    filter_of_the_tutorial | tee "$root/etc/pipeban/filters.d/apache-cgitraversal.conf"

    say "Apache, with pipeban in both of its pipes"
    cat >"$root/etc/apache2/apache2.conf" <<'CONF'
ServerRoot /var/site
DefaultRuntimeDir /run/apache2
PidFile /run/apache2/apache2.pid
ServerName www.example.org
Listen 80
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
User www-data
Group www-data
LogFormat "%h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\"" combined
DocumentRoot /var/site/htdocs
DirectoryIndex index.html
<Directory />
    Require all granted
</Directory>
ErrorLog "|/usr/bin/pipeban log error /var/log/apache2/error.log"
CustomLog "|/usr/bin/pipeban log access --format combined /var/log/apache2/access.log" combined
CONF
    echo hello >"$root/var/site/htdocs/index.html"
    grep pipeban "$root/etc/apache2/apache2.conf"
    on_server apache2 -f /etc/apache2/apache2.conf -k start </dev/null >"$root/var/log/apache-start" 2>&1 ||
        die "Apache did not start: $(cat "$root/var/log/apache-start")"
    wait_for "Apache answers" request 203.0.113.2 $server /
    wait_for "the engine answers" on_server pipeban status

    say "Before: both clients are served"
    echo "attacker:  $(request $attacker $server /)"
    echo "visitor:   $(request $visitor $server /)"

    say "The attack, by IPv4 and by IPv6"
    show "GET $attack"
    echo "$attacker:      $(request $attacker $server $attack || true)"
    echo "$attacker6:  $(request $attacker6 $server6 $attack || true)"
    wait_for "ban of $attacker in syslog" grep -q "Ban $attacker" "$root/var/log/world-syslog"
    wait_for "ban of ${attacker6%::*} in syslog" grep -q "Ban ${attacker6%::*}" "$root/var/log/world-syslog"

    say "Apache's error log, written through pipeban"
    grep AH10244 "$root/var/log/apache2/error.log"

    say "syslog"
    grep pipeban "$root/var/log/world-syslog"

    # The bans are already in force in pipeban's nftables table; the ufw rules follow.
    wait_for "the rules in ufw" in_ufw "$attacker"
    wait_for "the IPv6 rules in ufw" in_ufw "${attacker6%::*}"

    say "pipeban status"
    show "pipeban status apache-cgitraversal"
    COLUMNS=80 on_server pipeban status apache-cgitraversal

    say "ufw status"
    show "ufw status numbered"
    on_server ufw status numbered

    say "After: the attacker is out, by both protocols; the visitor is served"
    local answer
    answer=$(request $attacker $server / || true)
    echo "attacker (IPv4):  $answer"
    [[ $answer == no\ * ]] || die "the attacker is still served"
    answer=$(request $attacker6 $server6 / || true)
    echo "attacker (IPv6):  $answer"
    [[ $answer == no\ * ]] || die "the IPv6 attacker is still served"
    answer=$(request $visitor $server /)
    echo "visitor:          $answer"
    [[ $answer == *200* ]] || die "the visitor is not served"

    say "Done. Everything above ends now with its namespaces; this machine is as it was."
}

# ------------------------------------------------------------------------------ without root

engine=

in_a_dry_run() {
    say "Without a real Apache: that needs $(needed)"
    echo "The same log lines, through the same program, in a dry run: no firewall is touched."
    scratch=$(mktemp -d)
    trap '[ -z "$engine" ] || kill "$engine" 2>/dev/null; wait; rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/filters.d" "$scratch/run" "$scratch/state"
    {
        printf '[paths]\nruntime = "%s/run"\nstate = "%s/state"\n\n' "$scratch" "$scratch"
        printf '[firewall]\nbackend = "dry-run"\n\n'
        printf '[syslog]\ntarget = "unix:%s/no-syslog"\nlog_file = "%s/pipeban.log"\n\n' "$scratch" "$scratch"
        jail_of_the_tutorial
    } >"$scratch/pipeban.toml"
    filter_of_the_tutorial >"$scratch/filters.d/apache-cgitraversal.conf"
    cat "$scratch/pipeban.toml"

    local pipeban=("$binary" --config "$scratch/pipeban.toml")
    "${pipeban[@]}" engine >"$scratch/engine" 2>&1 &
    engine=$!
    wait_for "the engine answers" "${pipeban[@]}" status

    say "An attack by IPv4, one by IPv6, and a visitor's mistake"
    cat >"$scratch/error.log" <<LINES
[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919] [client $attacker:49108] AH10244: invalid URI path ($attack)
[Sun Nov 22 11:00:34.366318 2026] [core:error] [pid 22912:tid 22919] [client $attacker6:49109] AH10244: invalid URI path ($attack)
[Sun Nov 22 11:00:35.744214 2026] [authz_core:error] [pid 22934:tid 22940] [client $visitor:49202] AH01630: client denied by server configuration: /srv/htdocs/x
LINES
    cat "$scratch/error.log"
    show "pipeban log error --for-real < error.log"
    "${pipeban[@]}" log error --for-real <"$scratch/error.log"

    say "The lines for syslog"
    cat "$scratch/pipeban.log"

    say "pipeban status (a line with ! names what is missing, here Apache and syslog)"
    show "pipeban status apache-cgitraversal"
    COLUMNS=80 "${pipeban[@]}" status apache-cgitraversal
    local client
    for client in $attacker "${attacker6%::*}"; do
        grep -q "Ban $client" "$scratch/pipeban.log" || die "$client was not banned: $(cat "$scratch/engine")"
    done
    say "Done. With $(needed), \`make demo\` does this with a real Apache and a real ufw."
}

if [ -z "$(missing)" ]; then
    with_a_real_apache
else
    in_a_dry_run
fi
