//! `make acceptance`: programs that are too heavy for every run judge what pipeban produces.

mod chromium; // Chromium without its services and without a profile of a person
mod crs; // ModSecurity with the OWASP Core Rule Set, on the labelled lines
mod modsecurity; // what ModSecurity refuses
mod page; // the HTML report in Chromium
mod pictures; // the pictures of the README
mod systemd; // the unit and its drop-in under a real systemd
