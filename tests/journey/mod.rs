//! Real Apache, real ufw, real rsyslog, real clients.

mod ground; // the worlds themselves: what the other tests stand on
