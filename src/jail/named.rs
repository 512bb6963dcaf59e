//! One ban out of many, by its name.

use std::time::Duration;

use ipnet::IpNet;

use super::{Action, Ban, BanId, End, Jails, Moment};
use crate::config::JailName;

/// A time that has been through the store in another boot is that exact.
const SAME: Duration = Duration::from_secs(1);

impl Jails {
    /// The ban of that name, if it has not ended.
    pub fn ban_named(&self, id: BanId) -> Option<&Ban> {
        self.bans.iter().find(|ban| ban.id == id)
    }

    /// Ends this ban by hand and no other, whatever lies around it or in it, and starts what its
    /// jail counts of exactly its client again at nothing: also gives the (jail, client) of that.
    pub fn unban_named(&mut self, id: BanId) -> Option<(Action, (JailName, IpNet))> {
        let (jail, net) = self.ban_named(id).map(|ban| (ban.jail.clone(), ban.net))?;
        let ban = self.bans.remove(&jail, &net)?;
        let index = self.room_of(&jail);
        self.counters.reset(&(index, net));
        let end = End::ByHand;
        Some((Action::Unban { ban, end }, (jail, net)))
    }

    /// Forgets that this ban has been: the next one of its client is not longer because of it.
    pub fn forget_one(&mut self, ban: &Ban) {
        let key = (self.room_of(&ban.jail), ban.net);
        let apart = |at: Moment| at.since(ban.since).max(ban.since.since(at));
        let mut times = self.repeats.hits(&key);
        let times_apart = times.iter().map(|(at, _)| apart(*at)).enumerate();
        let nearest = times_apart.min_by_key(|(_, apart)| *apart);
        if let Some((place, _)) = nearest.filter(|(_, apart)| *apart <= SAME) {
            times.remove(place);
        }
        self.repeats.restore(key, times);
    }
}
