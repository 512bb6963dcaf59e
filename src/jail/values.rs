//! A ban's values by name, for programs that are told of it.

use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use super::exempt::show_net;

/// What stands for `{host}` and its like whatever the program is for: nothing that a client wrote.
/// `left`: how long it is to last; `None`: for ever, as 0 seconds.
pub fn ban_values(
    net: &IpNet,
    jail: &str,
    left: Option<Duration>,
    until: Option<Timestamp>,
) -> [(&'static str, String); 6] {
    let family = match net {
        IpNet::V4(_) => "4",
        IpNet::V6(_) => "6",
    };
    let seconds = left.map_or(0, |left| left.as_secs().max(1));
    let until = until.map_or(String::new(), |until| format!("{until:.0}"));
    [
        ("host", show_net(net)),
        ("net", net.to_string()),
        ("family", family.to_owned()),
        ("jail", jail.to_owned()),
        ("seconds", seconds.to_string()),
        ("until", until),
    ]
}
