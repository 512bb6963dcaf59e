# pipeban. `make demo` shows what it does; `make test` is the gate; `make bench` measures;
# `make fuzz` looks for inputs that break it.

CARGO ?= cargo
BIN   ?= target/release/pipeban
TESTS ?=

# install, uninstall
include packaging/install.mk
.DEFAULT_GOAL := build

.PHONY: build demo test bench fuzz

# Without cargo in the PATH (as under sudo) a program that is built already will do.
build:
	@if command -v $(CARGO) >/dev/null; then \
	    set -x; $(CARGO) build --release --locked; \
	elif [ -x $(BIN) ]; then \
	    echo "cargo is not in the PATH: $(BIN) is used as it is" >&2; \
	else \
	    echo "cargo is not in the PATH of $$(id -un), and $(BIN) is not built yet. Either:" >&2; \
	    echo "  install Rust 1.95 or newer (https://rustup.rs) and a C compiler, or" >&2; \
	    echo "  build as the user who has them: make build" >&2; \
	    exit 1; \
	fi

# A real Apache, a real ufw, a real attack, in namespaces: nothing of this machine is touched.
demo: build
	@tests/prepare.sh apache2=apache2-bin ufw=ufw ip=iproute2
	@tests/demo.sh $(BIN)

# Installs what is missing (as root, on Debian; starts no service). What has to be skipped is said
# loudly, on a line that begins with SKIPPED or MISSING. TESTS=NAME runs those of that name only.
test: build
	@tests/prepare.sh a2enconf=apache2 ufw=ufw nft=nftables iptables=iptables ipset=ipset rsyslogd=rsyslog \
	    ip=iproute2 ps=procps curl=curl fail2ban-regex=fail2ban
	@tests/tool.sh fmt --check
	@tests/tool.sh clippy --all-targets --locked -- -D warnings
	@tests/tool.sh deny check licenses bans sources
	$(CARGO) test --locked $(TESTS)

# Measurements, as root, twenty minutes: from the attack to the first refused packet (fail2ban
# beside), crowds of attackers, lines lost at reloads (rotatelogs beside), outages, throughput, a
# hundred virtual hosts.
bench:
	@tests/prepare.sh apache2=apache2-bin ufw=ufw nft=nftables rsyslogd=rsyslog ip=iproute2 \
	    rotatelogs=apache2-utils wrk=wrk ipset=ipset iptables=iptables fail2ban-server=fail2ban
	$(CARGO) test --release --locked --test main -- --ignored --nocapture --test-threads=1 measure

# Each target of fuzz/ for so many seconds; fuzz/README.md says what they look for. The corpus that
# grows is kept beside the seeds, in fuzz/corpus.
SECONDS ?= 600
TARGETS ?= filter_file pattern access_line error_line
fuzz:
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz" >&2; exit 1; }
	@set -e; for target in $(TARGETS); do \
	    mkdir -p fuzz/corpus/$$target; \
	    RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	        -max_total_time=$(SECONDS) -timeout=20 -max_len=2048; \
	done
