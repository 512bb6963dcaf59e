//! Hits counted in time windows, and the decisions that follow: ban, for how long, never.
//!
//! Pure: time is an argument, and the engine performs the actions that come back. `pipeban test`
//! and the engine call the same functions.
#![forbid(unsafe_code)]

mod bans;
mod by_hand;
mod cause;
mod confirm;
mod confirmations;
mod counter;
mod decision;
mod escalation;
mod exempt;
mod id;
mod jails;
mod moment;
mod netset;
mod network;
mod observe;
mod restore;
mod shared;
mod transfer;
mod values;

pub use bans::{Ban, BanCount, Bans, FirewallKey, FirewallState, MAX_BANS, Mode};
pub use by_hand::is_ban_of;
pub use cause::{Cause, End};
pub use confirmations::UNCONFIRMED_BANTIME;
pub use counter::{Counted, MAX_CLIENTS};
pub use decision::{Action, Claim, Hit, Observed, Refusal, Totals};
pub use exempt::{Exempt, Looked, Reason, Why};
pub use id::BanId;
pub use jails::{Jails, REMEMBERED};
pub use moment::{Moment, Now};
pub use netset::NetSet;
pub use network::{
    WIDEST_V4, WIDEST_V6, canonical, household, is_too_wide, overlap, show_net, single, unmap,
};
pub use observe::{SHARED_RETRIES, SURGE_BANTIME};
pub use restore::ADOPTED_FOR;
pub use shared::{SHARED_MEMORY, Shared};
pub use transfer::{Offer, OfferedEnd, Taken};
pub use values::ban_values;

#[cfg(test)]
mod tests;
