//! Real Apache, real ufw, real rsyslog, real clients.

mod formats; // in whatever format Apache writes, lines name whom Apache names
mod ground; // the worlds themselves: what the other tests stand on

mod bans; // who is banned, who never is, and what a ban closes
mod crashes; // whatever is killed, whenever: no line and no ban is lost
mod debian; // Debian's own /etc/apache2 beside pipeban, and without it again
mod endings; // bans that end, bans that come back
mod faults; // a log file that takes nothing
mod forged; // lines that are not Apache's own, or not whole
mod hands; // the engine led by commands alone, and what it puts back
mod matrix; // measurements, by `make bench`: lines lost at reloads and ends, rotatelogs beside
mod outages; // measurements, by `make bench`: kills, stops, a full disk, no engine
mod outputs; // where lines go, beside the real rotatelogs
mod passing; // every line Apache writes arrives, whatever is reloaded
mod proxied; // a site behind a proxy
mod refusals; // whatever is broken or forbidden: lines pass, and somebody is told
mod rehearsal; // a line by hand makes a real ban
mod surge; // more bans than are told one by one
mod switch; // off, on, and a configuration broken on disk
mod timing; // measurements, by `make bench`: from the attack to the ban
mod upheavals; // a firewall turned over, restarts, a boot: who gets through
mod weight; // measurements, by `make bench`: throughput, a hundred virtual hosts
