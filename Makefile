# pipeban. `make demo` shows what it does; `make test` is the gate; `make bench` measures.

CARGO ?= cargo
BIN   ?= target/release/pipeban

# install, uninstall
include packaging/install.mk
.DEFAULT_GOAL := build

.PHONY: build demo test bench

build:
	$(CARGO) build --release --locked

# A real Apache, a real ufw, a real attack, in namespaces: nothing of this machine is touched.
demo: build
	@tests/prepare.sh apache2=apache2-bin ufw=ufw ip=iproute2
	@tests/demo.sh $(BIN)

# Installs what is missing (as root, on Debian; starts no service). What has to be skipped is said
# loudly, on a line that begins with SKIPPED or MISSING.
test:
	@tests/prepare.sh a2enconf=apache2 ufw=ufw nft=nftables iptables=iptables rsyslogd=rsyslog \
	    ip=iproute2 ps=procps curl=curl fail2ban-regex=fail2ban
	@tests/tool.sh fmt --check
	@tests/tool.sh clippy --all-targets --locked -- -D warnings
	@tests/tool.sh deny check licenses bans sources
	$(CARGO) test --locked

# Measurements, as root: from the attack to the first refused packet, from the line to the decision.
bench:
	@tests/prepare.sh apache2=apache2-bin ufw=ufw nft=nftables rsyslogd=rsyslog ip=iproute2
	$(CARGO) test --release --locked --test main -- --ignored --nocapture --test-threads=1 measure
