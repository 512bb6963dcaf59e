//! Real Apache, real ufw, real rsyslog, real clients.

mod formats; // in whatever format Apache writes, pipeban finds the client that Apache names
mod ground; // the worlds themselves: what the other tests stand on

mod bans; // who is banned, who never is, and what a ban closes
mod confirmed; // lines that scripts imitate: a ban is short until its client was seen
mod crashes; // whatever is killed, whenever: no line and no ban is lost
mod crowds; // many attackers at once, and what a stop and a start let through
mod debian; // Debian's own /etc/apache2 beside pipeban, and without it again
mod endings; // bans that end, bans that come back
mod faults; // a log file that takes nothing
#[cfg(feature = "measure")]
mod force; // measurements, by `make bench`: each back end, fail2ban beside
mod forged; // lines that are not Apache's own, or not whole
mod hands; // the engine led by commands alone, and what it puts back
mod headers; // a header that any client may send, and who is banned for it
#[cfg(feature = "measure")]
mod injections; // measurements, by `make bench`: kills at system calls, and calls that fail
mod long; // lines as long as clients can make them
#[cfg(feature = "measure")]
mod matrix; // measurements, by `make bench`: lines lost at reloads and ends, rotatelogs beside
mod modules; // a module that names the client in its message
#[cfg(feature = "measure")]
mod outages; // measurements, by `make bench`: kills, stops, a full disk, no engine
mod outputs; // log files named by the time
mod passing; // every line Apache writes arrives, whatever is reloaded
mod proxied; // a site behind a proxy
mod refusals; // whatever is broken or forbidden: lines pass, and the fault is reported
mod rehearsal; // a line by hand makes a real ban
mod servers; // four kinds of server, set up and back
mod shared; // a NAT, a proxy that is not configured: one address that is many people
mod stock; // fail2ban's own filters, and patterns as people write them, whatever the log's format
mod surge; // more bans than are logged one by one
mod switch; // off, on, and a configuration broken on disk
#[cfg(feature = "measure")]
mod timing; // measurements, by `make bench`: from the attack to the ban
mod transfer; // bans written out and taken over
mod tutorial; // every command of docs/tutorial.md
mod unit; // what systemd's unit permits the engine
mod upheavals; // a firewall turned over, restarts, a boot: who gets through
#[cfg(feature = "measure")]
mod weight; // measurements, by `make bench`: throughput, a hundred virtual hosts
