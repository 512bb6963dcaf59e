# Install and uninstall: as root, or into DESTDIR, which does not change the running system; and the
# Debian package.

DESTDIR    ?=
BIN        ?= target/release/pipeban
BINDIR     := /usr/bin
SHAREDIR   := /usr/share/pipeban
CONFDIR    := /etc/pipeban
APACHEDIR  := /etc/apache2
UNITDIR    := /usr/lib/systemd/system
MANDIR     := /usr/share/man
SYSUSERS   := /usr/lib/sysusers.d
NEEDRESTART := /etc/needrestart/conf.d
D          := $(DESTDIR)
BASHDIR    := /usr/share/bash-completion/completions
ZSHDIR     := /usr/share/zsh/vendor-completions
FISHDIR    := /usr/share/fish/vendor_completions.d
PROGRAM    := $(D)$(BINDIR)/pipeban

.PHONY: install uninstall deb

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)-1
DEB     = target/deb/pipeban_$(VERSION)_$$(dpkg --print-architecture).deb

# The Debian package, with the files that `make install` installs. The program names no directory of the
# machine that built it, so that every machine builds the same.
deb: export RUSTFLAGS = --remap-path-prefix=$(CURDIR)=/pipeban --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo
deb: build
	@tests/prepare.sh dpkg-shlibdeps=dpkg-dev
	packaging/deb.sh $(BIN) $(VERSION) target/deb

# A rename replaces the binary, because Apache can start it at any time.
install:
	@test -x $(BIN) || { echo "$(BIN) does not exist: run 'make build' first" >&2; exit 1; }
	install -d $(D)$(BINDIR) $(D)$(CONFDIR)/conf.d $(D)$(CONFDIR)/filters.d $(D)$(UNITDIR) $(D)$(MANDIR)/man5 $(D)$(MANDIR)/man8 \
	    $(D)$(SHAREDIR)/jails.d $(D)$(SHAREDIR)/filters.d $(D)$(SHAREDIR)/proxies.d \
	    $(D)$(SHAREDIR)/examples/filters.d $(D)$(SHAREDIR)/examples/hooks $(D)$(SHAREDIR)/examples/systemd $(D)$(CONFDIR)/proxies.d \
	    $(D)$(SHAREDIR)/grafana \
	    $(D)$(APACHEDIR)/conf-available $(D)/etc/logrotate.d $(D)$(SYSUSERS) $(D)$(NEEDRESTART)
	install -m 0755 $(BIN) $(PROGRAM).new
	mv -f $(PROGRAM).new $(PROGRAM)
	install -m 0644 config/jails.d/*.toml $(D)$(SHAREDIR)/jails.d/
	install -m 0644 config/filters.d/*.toml $(D)$(SHAREDIR)/filters.d/
	install -m 0644 config/proxies.d/*.txt $(D)$(SHAREDIR)/proxies.d/
	install -m 0644 config/search-engines.txt $(D)$(SHAREDIR)/
	install -m 0644 config/pipeban.toml config/examples/*.toml $(D)$(SHAREDIR)/examples/
	install -m 0644 config/grafana/pipeban.json $(D)$(SHAREDIR)/grafana/
	install -m 0644 config/examples/filters.d/*.conf $(D)$(SHAREDIR)/examples/filters.d/
	install -m 0755 config/examples/hooks/* $(D)$(SHAREDIR)/examples/hooks/
	install -m 0644 config/examples/systemd/*.conf $(D)$(SHAREDIR)/examples/systemd/
	test -e $(D)$(CONFDIR)/pipeban.toml || install -m 0644 config/pipeban.toml $(D)$(CONFDIR)/pipeban.toml
	install -m 0644 apache-conf/*.conf $(D)$(APACHEDIR)/conf-available/
	install -m 0644 config/systemd/pipeban.service $(D)$(UNITDIR)/pipeban.service
	install -m 0644 config/logrotate/pipeban $(D)/etc/logrotate.d/pipeban
	install -m 0644 config/sysusers/pipeban.conf $(D)$(SYSUSERS)/pipeban.conf
	install -m 0644 config/needrestart/pipeban.conf $(D)$(NEEDRESTART)/pipeban.conf
	install -m 0644 man/pipeban.8 $(D)$(MANDIR)/man8/
	install -m 0644 man/pipeban.toml.5 man/pipeban-filters.5 $(D)$(MANDIR)/man5/
	install -d $(D)$(BASHDIR) $(D)$(ZSHDIR) $(D)$(FISHDIR)
	$(BIN) completions bash >$(D)$(BASHDIR)/pipeban
	$(BIN) completions zsh >$(D)$(ZSHDIR)/_pipeban
	$(BIN) completions fish >$(D)$(FISHDIR)/pipeban.fish
	@test -n "$(D)" || packaging/after-install

# Lifts bans, removes directives, tests Apache; deletes the binary only if nothing names it.
uninstall:
	@test -n "$(D)" || packaging/before-uninstall
	rm -f $(PROGRAM) $(D)$(UNITDIR)/pipeban.service $(D)/etc/logrotate.d/pipeban
	rm -f $(D)$(SYSUSERS)/pipeban.conf $(D)$(NEEDRESTART)/pipeban.conf
	rm -f $(D)$(MANDIR)/man8/pipeban.8 $(D)$(MANDIR)/man5/pipeban.toml.5 $(D)$(MANDIR)/man5/pipeban-filters.5
	rm -f $(D)$(APACHEDIR)/conf-available/pipeban.conf $(D)$(APACHEDIR)/conf-available/pipeban-deny.conf
	rm -f $(D)$(BASHDIR)/pipeban $(D)$(ZSHDIR)/_pipeban $(D)$(FISHDIR)/pipeban.fish
	rm -rf $(D)$(SHAREDIR)
	@test -n "$(D)" || { test ! -d /run/systemd/system || systemctl daemon-reload; }
	@echo "Kept: $(D)$(CONFDIR), /var/lib/pipeban, /var/log/pipeban.log"
