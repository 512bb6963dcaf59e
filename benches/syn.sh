#!/bin/bash
# What a SYN of a banned client costs the processor: dropped by pipeban's table, and beside it
# dropped by the same set at input, priority -10. As root: benches/syn.sh [PIPEBAN].
# Needs nft, ip, perl and conntrack.
#
# The client sends over veth pairs, so the sender's processor also does the receiver's work. The
# cost of sending alone, into a link whose other end is down, is subtracted. 100 001 addresses are
# banned, connection tracking is on, the rounds alternate and the median counts.
set -eu

pipeban=$(realpath "${1:-target/release/pipeban}")
packets=${PACKETS:-400000}
rounds=${ROUNDS:-5}
scratch=$(mktemp -d)
client=syn-client-$$ plain=syn-plain-$$ server=syn-pipeban-$$
engine=

clean_up() {
    [ -z "$engine" ] || { kill "$engine" && wait "$engine"; } 2>/dev/null || true
    for namespace in $client $plain $server; do ip netns del $namespace 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap clean_up EXIT

# link NAMESPACE NUMBER: joins it to the client and turns connection tracking on.
link() {
    ip netns add "$1"
    ip link add eth0 netns "$1" type veth peer name "eth$2" netns $client
    ip -n "$1" addr add "203.0.$2.1/24" dev eth0
    ip -n "$1" link set eth0 up
    ip -n "$1" link set lo up
    ip -n $client addr add "203.0.$2.9/24" dev "eth$2"
    ip -n $client link set "eth$2" up
    ip netns exec "$1" nft -f - <<'NFT'
table inet other {
    chain input {
        type filter hook input priority 0; policy accept;
        ct state established accept
    }
}
NFT
}

# 100 000 addresses and the client's two.
{ for b in $(seq 0 390); do printf "198.18.$((b % 256)).%s\n" $(seq 0 255) | sed "s/198.18/198.$((18 + b / 256))/"; done | head -99999
  printf '203.0.1.9\n203.0.2.9\n'; } >"$scratch/addresses"

ip netns add $client
link $plain 1
link $server 2
ip -n $client link add away type veth peer name gone
ip -n $client addr add 192.0.2.9/24 dev away
ip -n $client link set away up
ip -n $client neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev away

{
    echo 'table inet plain { set banned { type ipv4_addr; flags timeout; timeout 1h; elements = {'
    sed 's/$/,/' "$scratch/addresses"
    echo '} '
    echo '}'
    echo 'chain input { type filter hook input priority -10; policy accept;'
    echo 'ip saddr @banned tcp dport { 80, 443 } drop'
    echo '} '
    echo '}'
} >"$scratch/plain.nft"
ip netns exec $plain nft -f "$scratch/plain.nft"

cat >"$scratch/pipeban.toml" <<CONF
[paths]
runtime = "$scratch/run"
state = "$scratch/state"
[firewall]
backend = "nftables"
[syslog]
log_file = ""
[defaults]
port = ["http", "https"]
ban_private = true
CONF
mkdir "$scratch/run" "$scratch/state"
ip netns exec $server "$pipeban" --config "$scratch/pipeban.toml" engine >"$scratch/log" 2>&1 &
engine=$!
command=(ip netns exec $server "$pipeban" --config "$scratch/pipeban.toml")
for _ in $(seq 100); do "${command[@]}" status >/dev/null 2>&1 && break; sleep 0.1; done
"${command[@]}" import --jail manual "$scratch/addresses" >"$scratch/import" 2>&1 || true
tail -2 "$scratch/import"

# flood FROM TO: sends SYNs to port 80; prints nanoseconds a packet.
flood() {
    ip netns exec $client taskset -c 0 perl -MSocket -MTime::HiRes=time -e '
        my ($from, $to, $count) = @ARGV;
        my $tcp = sub { pack "nnNNCCnnn", 40000, 80, 1, 0, 0x50, 2, 65535, $_[0], 0 };
        my $words = inet_aton($from) . inet_aton($to) . pack("CCn", 0, 6, 20) . $tcp->(0);
        my $sum = unpack "%32n*", $words;
        $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
        socket my $socket, AF_INET, SOCK_RAW, 6 or die "socket: $!";
        bind $socket, pack_sockaddr_in(0, inet_aton($from)) or die "bind: $!";
        connect $socket, pack_sockaddr_in(0, inet_aton($to)) or die "connect: $!";
        my $packet = $tcp->(~$sum & 0xffff);
        my $start = time;
        for (1 .. $count) { send $socket, $packet, 0 }
        printf "%d\n", (time - $start) * 1e9 / $count;
    ' "$1" "$2" "$packets"
}
inserted() { ip netns exec "$1" conntrack -S | grep -o '\binsert=[0-9]*' | cut -d= -f2 | awk '{n += $1} END {print n}'; }
median() { sort -n "$1" | awk '{a[NR] = $1} END {print a[int((NR + 1) / 2)]}'; }

for _ in $(seq "$rounds"); do
    flood 192.0.2.9 192.0.2.1 >>"$scratch/sender"
    flood 203.0.1.9 203.0.1.1 >>"$scratch/input"
    flood 203.0.2.9 203.0.2.1 >>"$scratch/pipeban"
done
sender=$(median "$scratch/sender")
input=$(($(median "$scratch/input") - sender))
pipeban_cost=$(($(median "$scratch/pipeban") - sender))
echo "sending alone        $sender ns a packet"
echo "input, priority -10  $input ns a packet beside sending; conntrack entries: $(inserted $plain)"
echo "pipeban              $pipeban_cost ns a packet beside sending; conntrack entries: $(inserted $server)"
awk -v a="$pipeban_cost" -v b="$input" 'BEGIN {printf "pipeban / input -10: %.2f\n", a / b}'
