# pipeban. `make demo` shows what it does, `make check` is quick, `make test` is the gate,
# `make bench` measures, `make fuzz` searches for inputs that break it.

CARGO   ?= cargo
PROFILE ?= release
BIN     ?= target/$(PROFILE:dev=debug)/pipeban
TESTS   ?=

# install, uninstall, deb
include packaging/install.mk
.DEFAULT_GOAL := build

.PHONY: build rust demo try check lint test test-package test-units detect acceptance pictures bench fuzz
.PHONY: static reproducible sbom

# Where cargo is not in the PATH (as under sudo), a program that is already built is used.
build:
	@if command -v $(CARGO) >/dev/null; then \
	    set -x; $(CARGO) build --profile $(PROFILE) --locked; \
	elif [ -x $(BIN) ]; then \
	    echo "cargo is not in the PATH: $(BIN) is used as it is" >&2; \
	else \
	    echo "cargo is not in the PATH of $$(id -un), and $(BIN) is not built yet. Either:" >&2; \
	    echo "  install Rust 1.95 or newer and a C compiler:" >&2; \
	    echo "    apt install make cargo-web rustc-web (Debian 12 and 13), or https://rustup.rs; or" >&2; \
	    echo "  build as the user who has them: make build" >&2; \
	    exit 1; \
	fi

# As root on Debian: Rust and a C compiler, where they and the program are missing.
rust:
	@command -v $(CARGO) >/dev/null || [ -x $(BIN) ] || tests/prepare.sh $(CARGO)=cargo-web rustc=rustc-web cc=gcc

# A real Apache, a real ufw, a real attack, in namespaces: nothing of this machine is touched.
demo: rust build
	@tests/prepare.sh apache2=apache2-bin ufw=ufw ip=iproute2
	@tests/demo.sh $(BIN)

# Shows which clients the shipped jails would have banned, from a log of yours (also .gz, .xz). Needs
# no root, installs and changes nothing. `make try LOG=/var/log/apache2/access.log`
try: build
	@test -r "$(LOG)" || { echo "name a log that you may read: make try LOG=/var/log/apache2/access.log"; exit 1; }
	@case "$$(case "$(LOG)" in *.xz) xz -dc "$(LOG)";; *) zcat -f "$(LOG)";; esac 2>/dev/null | head -c 1)" in \
	    "[") kind=error;; *) kind=access;; esac; \
	$(BIN) replay --kind $$kind "$(LOG)"; status=$$?; [ $$status -le 1 ]

# Format, lints and unit tests, for use while writing: no root, about a minute once it is built.
check: lint
	umask 022; $(CARGO) test --quiet --locked --lib $(TESTS)

# Measurements are behind a feature; clippy reads them too.
lint:
	@tests/tool.sh fmt --check
	@tests/tool.sh clippy --quiet --all-targets --all-features --locked -- -D warnings

# Everything. TESTS=NAME runs the tests of that name only. Installs the programs that are missing
# (as root, on Debian; starts no service). Each test that is skipped prints a line that begins with
# SKIPPED; with CI=true a program that could not be installed is a failure (tests/support/skip.rs).
test: rust lint
	@tests/prepare.sh a2enconf=apache2 ufw=ufw nft=nftables iptables=iptables rsyslogd=rsyslog \
	    ip=iproute2 ps=procps curl=curl fail2ban-regex=fail2ban faketime=faketime mandoc=mandoc nginx=nginx-light \
	    dnsmasq=dnsmasq-base mkfs.ext4=e2fsprogs
	umask 022; $(CARGO) test --locked $(TESTS)

# The labelled lines through the shipped filters: one table by class and origin of the lines.
# PIPEBAN_DETECT_DATA=DIR reads other lines, PIPEBAN_DETECT_MISSES=FILE keeps those that go wrong.
detect:
	$(CARGO) test --locked --test main -- --nocapture detect::

# Heavy programs judge what pipeban produces: Chromium the HTML report, whose pictures are left in
# target/tmp/pictures, promtool the metrics, ModSecurity its filter and, with fail2ban, by what they
# find of the labelled lines, the shipped filters. TESTS=acceptance::NAME runs some.
acceptance: TESTS = acceptance
acceptance:
	@tests/prepare.sh chromium=chromium promtool=prometheus apache2=apache2-bin ufw=ufw ip=iproute2
	@tests/prepare.sh /usr/lib/apache2/modules/mod_security2.so=libapache2-mod-security2 \
	    /usr/share/modsecurity-crs/owasp-crs.load=modsecurity-crs fail2ban-regex=fail2ban
	$(CARGO) test --locked --features acceptance --test main -- --nocapture $(TESTS)

# The shipped unit and its drop-in under a real systemd, in namespaces; and the tests of the engine as
# services with their restrictions.
test-units:
	@tests/prepare.sh /lib/systemd/systemd=systemd ufw=ufw nft=nftables ip=iproute2
	$(CARGO) test --locked --features acceptance --test main -- --nocapture --test-threads=1 acceptance::systemd

# Makes the pictures of the README again, from the real program.
pictures:
	$(MAKE) acceptance TESTS=acceptance::pictures
	cp target/tmp/pictures/session.svg target/tmp/pictures/report.png docs/

# The Debian package: installed, upgraded under load, removed and purged in fresh Debian 12 and 13
# systems, in namespaces. The first run downloads these systems. SUITES=bookworm tests one.
SUITES ?= bookworm trixie
test-package: deb
	@tests/prepare.sh debootstrap=debootstrap lintian=lintian
	lintian --allow-root --fail-on error,warning $(DEB)
	packaging/deb.sh $(BIN) $(VERSION)+next target/deb
	tests/package.sh $(DEB) target/deb/pipeban_$(VERSION)+next_*.deb $(SUITES)

# Measurements, as root, twenty minutes: from the attack to the first refused packet (fail2ban
# beside), crowds of attackers, lines lost at reloads (rotatelogs beside), outages, throughput, a
# hundred virtual hosts. TESTS=measure_NAME runs one.
bench: TESTS = measure
bench:
	@tests/prepare.sh apache2=apache2-bin ufw=ufw nft=nftables rsyslogd=rsyslog ip=iproute2 \
	    rotatelogs=apache2-utils wrk=wrk iptables=iptables fail2ban-server=fail2ban \
	    conntrack=conntrack perl=perl-base rg=ripgrep time=time
	$(CARGO) test --release --locked --features measure -- --nocapture --test-threads=1 $(TESTS)
	$(CARGO) bench --locked --bench matching
	$(CARGO) build --release --locked
	benches/syn.sh target/release/pipeban
	benches/lines.sh target/release/pipeban

# Each target of fuzz/ for so many seconds; fuzz/README.md says what they search for. The corpus that
# grows is kept beside the seeds, in fuzz/corpus.
SECONDS ?= 600
TARGETS ?= access_line error_line decoding pattern rules filter_file configuration migration message
fuzz:
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz" >&2; exit 1; }
	@set -e; for target in $(TARGETS); do \
	    mkdir -p fuzz/corpus/$$target; \
	    RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	        -max_total_time=$(SECONDS) -timeout=20 -max_len=2048; \
	done

# A program without shared libraries, for distributions with an older C library: needs the target
# (`rustup target add x86_64-unknown-linux-musl`) and musl-gcc (musl-tools).
STATIC := $(shell uname -m)-unknown-linux-musl
static:
	CC_$(subst -,_,$(STATIC))=musl-gcc $(CARGO) build --release --locked --target $(STATIC)

# Builds the Debian package of HEAD in two directories, and compares every byte.
reproducible:
	packaging/reproducible.sh

# What the program is built from, as CycloneDX: pipeban.cdx.json.
sbom:
	@command -v cargo-cyclonedx >/dev/null || { echo "cargo-cyclonedx is missing: cargo install cargo-cyclonedx" >&2; exit 1; }
	$(CARGO) cyclonedx --format json --target $(shell uname -m)-unknown-linux-gnu --override-filename pipeban.cdx
	sed -i 's|path+file://$(CURDIR)|path+file:///pipeban|' pipeban.cdx.json
