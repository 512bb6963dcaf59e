#!/bin/sh
# How many lines a second pass and are matched, beside programs that do a part of it. As root, which
# makes namespaces of its own: benches/lines.sh [PIPEBAN]. Needs rotatelogs, rg, fail2ban-regex, time.
#
# Each program reads the same log, LINES long; the rounds alternate and the median counts.
#   cat          cat LOG | cat > FILE
#   rotatelogs   cat LOG | rotatelogs FILE
#   rg           rg -c -f PATTERNS LOG: lines that match, nothing is written
#   pipeban 40   cat LOG | pipeban log: until each line is written and matched, with forty patterns
#   pipeban      the same with the shipped jails
#   fail2ban     fail2ban-regex with the forty patterns, on the first 20 000 lines, once
# `shed` are lines that were written and not matched, because matching was too slow.
set -eu

[ -n "${INSIDE:-}" ] || exec unshare -n -m env INSIDE=1 "$0" "$@"
pipeban=$(realpath "${1:-target/release/pipeban}")
here=$(dirname "$(realpath "$0")")
lines=${LINES:-2000000}
rounds=${ROUNDS:-3}
scratch=$(mktemp -d)
engine=

clean_up() {
    [ -z "$engine" ] || { kill "$engine" && wait "$engine"; } 2>/dev/null || true
    rm -rf "$scratch"
}
trap clean_up EXIT
cd "$scratch"

# make_log PERCENT: half of the requests are new, so many are attacks.
make_log() {
    awk -v lines="$lines" -v percent="$1" 'BEGIN {
        split("/.env /wp-login.php /cgi-bin/.%2e/.%2e/bin/sh /eval-stdin.php /x?id=1+union+select+1", attack, " ")
        agent[0] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
        agent[1] = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1"
        agent[2] = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:132.0) Gecko/20100101 Firefox/132.0"
        for (n = 0; n < lines; n++) {
            path = "/assets/site.css?v=" n % 100
            if (n % 2 == 0) path = "/shop/item-" n ".html?ref=list&page=" n % 7
            if (n % 100 < percent) path = attack[n % 5 + 1]
            client = n % 5000
            printf "198.18.%d.%d - - [22/Nov/2026:11:00:32 +0000] \"GET %s HTTP/1.1\" 200 5120 \"https://www.example.org/page/%d\" \"%s\"\n", client / 250, client % 250, path, n % 500, agent[int(n / 7) % 3]
        }
    }' >log
    head -n 20000 log >few
}

mkdir filters.d
sed 's/.*/^[0-9.]+ .*(?i:&)/' "$here/words.txt" >patterns
{
    echo '[Definition]'
    sed 's/.*/^<HOST> .*(?i:&)/; 1s/^/failregex = /; 2,$s/^/    /' "$here/words.txt"
} >filters.d/forty.conf

# configure LINE...: what the engine does with lines, besides
configure() {
    {
        printf '[paths]\nshare = "%s/../config"\nruntime = "%s/run"\nstate = "%s/state"\n' "$here" "$scratch" "$scratch"
        printf '[firewall]\nbackend = "dry-run"\n[syslog]\ntarget = "none"\nlog_file = ""\n'
        printf '%s\n' "$@"
    } >pipeban.toml
}

# run NAME COMMAND...: its seconds, processor seconds and KB at most to the file NAME
run() {
    name=$1
    shift
    started=$(date +%s%N)
    command time -o used -f '%U %S %M' "$@"
    ended=$(date +%s%N)
    awk -v ns=$((ended - started)) '{ print ns / 1e9, $1 + $2, $3, "-", "-" }' used >>"$name"
}

# pipe NAME: the same for `pipeban log`, until all is matched
pipe() {
    name=$1
    rm -rf run state out pipe
    mkdir run state
    "$pipeban" --config pipeban.toml engine &
    engine=$!
    until "$pipeban" --config pipeban.toml status >/dev/null 2>&1; do
        kill -0 $engine
        sleep 0.05
    done
    mkfifo pipe
    command time -o used -f '%U %S %M' "$pipeban" --config pipeban.toml log access out <pipe >answers 2>&1 &
    log=$!
    exec 3>pipe
    sleep 1
    started=$(date +%s%N)
    cat log >&3
    until
        status=$("$pipeban" --config pipeban.toml --json status | grep -o '"workers":\[[^]]*')
        ended=$(date +%s%N)
        matched=$(echo "$status" | sed -n 's/.*"matched":\([0-9]*\).*/\1/p')
        shed=$(echo "$status" | sed -n 's/.*"shed":\([0-9]*\).*/\1/p')
        [ $((${matched:-0} + ${shed:-0})) -ge "$lines" ]
    do :; done
    exec 3>&-
    wait $log
    cmp log out
    kill $engine && wait $engine || true
    engine=
    awk -v ns=$((ended - started)) -v m="$matched" -v s="$shed" \
        '{ print ns / 1e9, $1 + $2, $3, m, s }' used >>"$name"
}

for percent in 0 1 20 100; do
    make_log $percent
    rm -f of.*
    for _ in $(seq "$rounds"); do
        run of.cat sh -c 'cat log | cat >out'
        run of.rotatelogs sh -c 'rm -f out && cat log | rotatelogs out 86400'
        run of.rg sh -c 'rg -c -f patterns log >out || true'
        configure '[jails.forty]' 'enabled = true' 'log = "access"' 'filter = "forty"' \
            'enforce = false' "$(sed -n 's/^\[\(jails\..*\)\]$/[\1]\nenabled = false/p' "$here"/../config/jails.d/*.toml)"
        pipe 'of.pipeban 40'
        configure '[defaults]' 'enforce = false'
        pipe of.pipeban
    done
    run of.fail2ban sh -c 'fail2ban-regex few filters.d/forty.conf >out 2>&1'
    printf '\n%s lines, %s %% attacks, %s MB\n' "$lines" $percent $(($(wc -c <log) / 1000000))
    printf '%-12s %8s %10s %8s %8s %9s %9s %8s\n' program MB/s lines/s 'cpu s' MB matched shed 'of cat'
    for name in cat rotatelogs rg 'pipeban 40' pipeban fail2ban; do
        read_log=log count=$lines
        [ "$name" != fail2ban ] || { read_log=few count=20000; }
        sort -n "of.$name" | sed -n "$((($(wc -l <"of.$name") + 1) / 2))p" |
            awk -v name="$name" -v bytes="$(wc -c <$read_log)" -v lines="$count" \
                -v cat="$(sort -n of.cat | sed -n "$(((rounds + 1) / 2))p")" -v all="$(wc -c <log)" '{
                    split(cat, of_cat, " ")
                    rate = bytes / $1
                    printf "%-12s %8.1f %10d %8.2f %8.1f %9s %9s %8.3f\n", name, rate / 1e6, lines / $1, $2, $3 / 1000, $4, $5, rate / (all / of_cat[1])
                }'
    done
done
