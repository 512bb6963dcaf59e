//! One binary; a module a subject. `cfg(test)` tells clippy that these are tests throughout.
#![forbid(unsafe_code)]

#[cfg(test)]
#[cfg(feature = "acceptance")]
mod acceptance; // heavy programs judge what pipeban produces
#[cfg(test)]
mod cases; // what administrators have, type and see
#[cfg(test)]
mod completions; // what shells complete
#[cfg(test)]
mod config; // configuration, check, setup: files in, output and status out
#[cfg(test)]
mod crates; // licences, versions and sources of what pipeban is built from
#[cfg(test)]
mod detect; // the shipped native filters on labelled lines
#[cfg(test)]
mod docs; // README, manual, help and shipped configuration say the same
#[cfg(test)]
mod doctor; // `pipeban doctor` on a host that is broken in each way, and repaired as it says
#[cfg(test)]
mod engine; // the real engine, its socket and its commands, with the dry-run back end
#[cfg(test)]
mod explain; // situations in which a client is not blocked, and the cause that is named first
#[cfg(test)]
mod fail2ban; // the filters and samples of fail2ban's package, where it is installed
#[cfg(test)]
mod filters; // lines of hostile clients, read by records, filters and `pipeban test`
#[cfg(test)]
mod fuzz; // the bodies of the fuzz targets, with their seeds
#[cfg(test)]
mod journey; // real Apache, real ufw, real clients, in namespaces: the promises of the README
#[cfg(test)]
mod kernel; // the real kernel's tables and sockets and the real ufw, in namespaces
#[cfg(test)]
mod pipe; // `pipeban log`: nothing lost, whatever is killed
#[cfg(test)]
mod recipes; // the example hooks against a local server
#[cfg(test)]
mod report; // reports of real databases and logs
#[cfg(test)]
mod shipped; // the shipped filters, each from both sides
#[cfg(test)]
mod support; // the builder of those worlds
#[cfg(test)]
mod tidy; // rules of the tree
