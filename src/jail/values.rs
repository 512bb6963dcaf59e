//! The values of a ban that hooks and the command back end pass to programs.

use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use super::network::show_net;

/// The values for `{host}` and the other placeholders; none contains text from a client. `left`:
/// the time until the ban ends; `None`: for ever, which `{seconds}` shows as 0.
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
