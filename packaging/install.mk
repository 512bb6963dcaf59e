# Install and uninstall, as root, or into DESTDIR (which changes nothing of the running system).

DESTDIR    ?=
BIN        ?= target/release/pipeban
BINDIR     := /usr/bin
SHAREDIR   := /usr/share/pipeban
CONFDIR    := /etc/pipeban
APACHEDIR  := /etc/apache2
UNITDIR    := /lib/systemd/system
MANDIR     := /usr/share/man/man8
D          := $(DESTDIR)
PROGRAM    := $(D)$(BINDIR)/pipeban

.PHONY: install uninstall

# The binary is replaced by rename: Apache may start it at any moment.
install:
	@test -x $(BIN) || { echo "$(BIN) is not there: run 'make build' first" >&2; exit 1; }
	install -d $(D)$(BINDIR) $(D)$(CONFDIR)/conf.d $(D)$(CONFDIR)/filters.d $(D)$(UNITDIR) $(D)$(MANDIR) \
	    $(D)$(SHAREDIR)/jails.d $(D)$(SHAREDIR)/filters.d $(D)$(SHAREDIR)/proxies.d \
	    $(D)$(SHAREDIR)/examples/filters.d $(D)$(CONFDIR)/proxies.d \
	    $(D)$(APACHEDIR)/conf-available $(D)/etc/logrotate.d
	install -m 0755 $(BIN) $(PROGRAM).new
	mv -f $(PROGRAM).new $(PROGRAM)
	install -m 0644 config/jails.d/*.toml $(D)$(SHAREDIR)/jails.d/
	install -m 0644 config/filters.d/*.conf $(D)$(SHAREDIR)/filters.d/
	install -m 0644 config/proxies.d/*.txt $(D)$(SHAREDIR)/proxies.d/
	install -m 0644 config/pipeban.toml config/examples/*.toml $(D)$(SHAREDIR)/examples/
	install -m 0644 config/examples/filters.d/*.conf $(D)$(SHAREDIR)/examples/filters.d/
	test -e $(D)$(CONFDIR)/pipeban.toml || install -m 0644 config/pipeban.toml $(D)$(CONFDIR)/pipeban.toml
	install -m 0644 apache-conf/*.conf $(D)$(APACHEDIR)/conf-available/
	install -m 0644 config/systemd/pipeban.service $(D)$(UNITDIR)/pipeban.service
	install -m 0644 config/logrotate/pipeban $(D)/etc/logrotate.d/pipeban
	install -m 0644 man/pipeban.8 $(D)$(MANDIR)/pipeban.8
	@test -n "$(D)" || packaging/after-install

# Bans lifted, directives taken out, Apache tested; the binary goes only when nothing names it.
uninstall:
	@test -n "$(D)" || packaging/before-uninstall $(PROGRAM)
	rm -f $(PROGRAM) $(D)$(UNITDIR)/pipeban.service $(D)$(MANDIR)/pipeban.8 $(D)/etc/logrotate.d/pipeban
	rm -f $(D)$(APACHEDIR)/conf-available/pipeban.conf $(D)$(APACHEDIR)/conf-available/pipeban-deny.conf
	rm -rf $(D)$(SHAREDIR)
	@test -n "$(D)" || { test ! -d /run/systemd/system || systemctl daemon-reload; }
	@echo "Kept: $(D)$(CONFDIR), /var/lib/pipeban, /var/log/pipeban.log"
