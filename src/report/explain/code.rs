//! The codes of reasons, which programs rely on.

/// Why a client is banned or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// A ban is active.
    Banned,
    /// Hits count, and are too few.
    BelowMaxretry,
    /// Hits were enough, and too far apart.
    OutsideFindtime,
    /// `ignoreip`, or `pipeban allow`.
    AllowListed,
    /// An address, a gateway or a name server of this host.
    OwnAddress,
    /// A private or reserved range.
    PrivateRange,
    /// A network wider than any ban.
    TooWide,
    /// `[proxies] trusted`.
    TrustedProxy,
    /// The user agent names a search engine; reverse DNS says whether it is one.
    GoodBot,
    /// A header named the client, and any client may have sent that.
    HeaderNamed,
    /// Many browsers use the address.
    SharedAddress,
    /// Nothing has shown that the client of the lines was there.
    Unconfirmed,
    /// No log has a line of it.
    NotSeen,
    /// Apache writes its lines past pipeban.
    LogNotPiped,
    /// The lines did not come through Apache's pipe.
    WrittenByHand,
    /// The pasted line matches a jail.
    Match,
    /// No jail matches its lines.
    NoMatch,
    /// pipeban cannot read the lines.
    Unparsed,
    /// The lines match with another address than the client's.
    Spoof,
    /// The jail that would match is disabled.
    JailDisabled,
    /// The jail that would match reads the other log.
    WrongLog,
    /// The jail that would match is for other virtual hosts.
    WrongVhost,
    /// The files on disk have a jail that would match, and are not in use yet.
    NotReloaded,
    /// The jail's bans are not enforced.
    ObserveOnly,
    /// The emergency stop is on.
    Paused,
    /// No engine runs.
    EngineStopped,
    /// A worker does not match lines, or lost some.
    LinesDropped,
    /// The ban's time is over.
    Expired,
    /// The ban was lifted.
    Unbanned,
    /// The back end does not hold the ban.
    FirewallMissing,
    /// ufw is not active.
    UfwInactive,
    /// ufw makes no rules for IPv6.
    Ipv6Off,
    /// An earlier rule lets the client through.
    RuleShadowed,
    /// Apache listens on a port that the ban leaves open.
    OtherPort,
    /// The port is forwarded past the rule.
    ForwardedPort,
    /// The client comes through a proxy.
    BehindProxy,
    /// The firewall could not be asked.
    Unknown,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 37] = [
        Code::Banned,
        Code::BelowMaxretry,
        Code::OutsideFindtime,
        Code::AllowListed,
        Code::OwnAddress,
        Code::PrivateRange,
        Code::TooWide,
        Code::TrustedProxy,
        Code::GoodBot,
        Code::HeaderNamed,
        Code::SharedAddress,
        Code::Unconfirmed,
        Code::NotSeen,
        Code::LogNotPiped,
        Code::WrittenByHand,
        Code::Match,
        Code::NoMatch,
        Code::Unparsed,
        Code::Spoof,
        Code::JailDisabled,
        Code::WrongLog,
        Code::WrongVhost,
        Code::NotReloaded,
        Code::ObserveOnly,
        Code::Paused,
        Code::EngineStopped,
        Code::LinesDropped,
        Code::Expired,
        Code::Unbanned,
        Code::FirewallMissing,
        Code::UfwInactive,
        Code::Ipv6Off,
        Code::RuleShadowed,
        Code::OtherPort,
        Code::ForwardedPort,
        Code::BehindProxy,
        Code::Unknown,
    ];

    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Code::Banned => "banned",
            Code::BelowMaxretry => "below-maxretry",
            Code::OutsideFindtime => "outside-findtime",
            Code::AllowListed => "allow-listed",
            Code::OwnAddress => "own-address",
            Code::PrivateRange => "private-range",
            Code::TooWide => "too-wide",
            Code::TrustedProxy => "trusted-proxy",
            Code::GoodBot => "good-bot",
            Code::HeaderNamed => "header-named",
            Code::SharedAddress => "shared-address",
            Code::Unconfirmed => "unconfirmed",
            Code::NotSeen => "not-seen",
            Code::LogNotPiped => "log-not-piped",
            Code::WrittenByHand => "written-by-hand",
            Code::Match => "match",
            Code::NoMatch => "no-match",
            Code::Unparsed => "unparsed",
            Code::Spoof => "spoof",
            Code::JailDisabled => "jail-disabled",
            Code::WrongLog => "wrong-log",
            Code::WrongVhost => "wrong-vhost",
            Code::NotReloaded => "not-reloaded",
            Code::ObserveOnly => "observe-only",
            Code::Paused => "paused",
            Code::EngineStopped => "engine-stopped",
            Code::LinesDropped => "lines-dropped",
            Code::Expired => "expired",
            Code::Unbanned => "unbanned",
            Code::FirewallMissing => "firewall-missing",
            Code::UfwInactive => "ufw-inactive",
            Code::Ipv6Off => "ipv6-off",
            Code::RuleShadowed => "rule-shadowed",
            Code::OtherPort => "other-port",
            Code::ForwardedPort => "forwarded-port",
            Code::BehindProxy => "behind-proxy",
            Code::Unknown => "unknown",
        }
    }
}
