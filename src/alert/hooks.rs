//! The administrator's programs that are told of bans: `on_ban` and `on_unban`, one at a time on a
//! thread. Nobody waits for them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::JailName;
use crate::sys::program::{self, Failure};

/// Calls that wait for the thread.
const MOST_WAITING: usize = 1_000;
/// How long the end of the engine lets hooks run on.
const GRACE: Duration = Duration::from_secs(1);
/// Failing hooks named in one alarm.
const MOST_NAMED: usize = 3;

/// One run of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Whose hook.
    pub jail: JailName,
    /// Which: `on_ban` or `on_unban`.
    pub key: &'static str,
    /// Of whom it is told.
    pub host: String,
    /// The program and its arguments, values in place.
    pub argv: Vec<String>,
    /// When it is killed.
    pub timeout: Duration,
}

/// The queue to the thread, and what is wrong there.
pub struct Hooks {
    queue: Sender<Call>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    shared: Arc<Shared>,
    /// Calls that found the queue full since it was empty last.
    lost: u64,
    /// Those are told.
    told: bool,
}

#[derive(Default)]
struct Shared {
    /// The first failure of each hook since it worked last.
    failing: Mutex<BTreeMap<(JailName, &'static str), String>>,
    /// From then on nothing is run.
    stop: OnceLock<Instant>,
    /// Not run, or not to the end, because of that.
    left: AtomicUsize,
}

impl Shared {
    fn failing(&self) -> MutexGuard<'_, BTreeMap<(JailName, &'static str), String>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.stop.get().is_some_and(|stop| Instant::now() >= *stop)
    }
}

impl Hooks {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start() -> std::io::Result<Hooks> {
        let (queue, calls) = bounded(MOST_WAITING);
        let (ending, ended) = bounded(0);
        let shared = Arc::new(Shared::default());
        let thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("hooks".into())
            .spawn(move || {
                let _ending = ending;
                calls.iter().for_each(|call| run(&call, &thread));
            })?;
        Ok(Hooks {
            queue,
            ended,
            shared,
            lost: 0,
            told: false,
        })
    }

    /// Has a hook run after those before it; where [`MOST_WAITING`] wait it is dropped and counted.
    pub fn call(&mut self, call: Call) {
        if self.queue.try_send(call).is_err() {
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// Hooks that fail: from their first failure to their next success.
    pub fn failing(&self) -> Option<String> {
        let failing = self.shared.failing();
        let more = failing.len().saturating_sub(MOST_NAMED);
        let mut texts: Vec<String> = failing.values().take(MOST_NAMED).cloned().collect();
        if more > 0 {
            texts.push(format!("and {more} more"));
        }
        (!texts.is_empty()).then(|| {
            format!(
                "hooks fail, bans are made all the same (`pipeban reload` when they are mended): {}",
                texts.join("; ")
            )
        })
    }

    /// Calls that were dropped, until all that waits has been run; told at least once.
    pub fn lost(&mut self) -> Option<String> {
        if self.lost == 0 || (self.told && self.queue.is_empty()) {
            (self.lost, self.told) = (0, false);
            return None;
        }
        self.told = true;
        Some(format!(
            "hooks are slower than bans: {MOST_WAITING} wait, {} were dropped. Have the program \
             hand its work over and end, or lower `hook_timeout` or `bans_per_minute`",
            self.lost
        ))
    }

    /// Forgets failures: other programs may be in use now.
    pub fn forget(&self) {
        self.shared.failing().clear();
    }

    /// The end has begun: what has not ended in a second is killed.
    pub fn stop(&self) {
        self.shared.stop.get_or_init(|| Instant::now() + GRACE);
    }

    /// Ends the thread, and tells how many calls were not run, or not to their end.
    pub fn finish(self) -> usize {
        self.stop();
        drop(self.queue);
        // One that does not even die when it is killed is left.
        let _ = self.ended.recv_timeout(GRACE + GRACE);
        self.shared.left.load(Ordering::Relaxed)
    }
}

fn run(call: &Call, shared: &Shared) {
    let left = || {
        shared.left.fetch_add(1, Ordering::Relaxed);
    };
    let Some((program, argv)) = call.argv.split_first() else {
        return;
    };
    if shared.is_over() {
        return left();
    }
    let over = || shared.is_over();
    let key = (call.jail.clone(), call.key);
    match program::run(program, argv, String::new(), call.timeout, &over) {
        Ok(_) => _ = shared.failing().remove(&key),
        Err(Failure::Unwanted) => left(),
        Err(failure) => {
            let Call {
                jail,
                key: name,
                host,
                ..
            } = call;
            let text = format!("[{jail}] {name} for {host}: {program}: {failure}");
            shared.failing().entry(key).or_insert(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(key: &'static str, argv: &[&str]) -> Call {
        Call {
            jail: "a".parse().unwrap(),
            key,
            host: "192.0.2.1".into(),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            timeout: Duration::from_millis(200),
        }
    }

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_failing_hook_is_told_from_its_first_failure_to_its_next_success() {
        let mut hooks = Hooks::start().unwrap();
        hooks.call(call("on_ban", &["/bin/false"]));
        hooks.call(call("on_unban", &["/bin/sleep", "1475"]));
        until("both fail", || {
            hooks.failing().is_some_and(|text| text.contains("; "))
        });
        let text = hooks.failing().unwrap();
        assert!(
            text.ends_with(
                "[a] on_ban for 192.0.2.1: /bin/false: exit status: 1; \
                 [a] on_unban for 192.0.2.1: /bin/sleep: no end after 0 s, killed"
            ),
            "{text}"
        );
        hooks.call(call("on_ban", &["/bin/cat", "/nonexistent"]));
        hooks.call(call("on_unban", &["/bin/true"]));
        until("one works", || {
            hooks
                .failing()
                .is_some_and(|text| !text.contains("on_unban"))
        });
        // the first failure stands for those after it
        assert!(hooks.failing().unwrap().contains("/bin/false"));
        hooks.forget();
        assert_eq!(hooks.failing(), None);
        assert_eq!(hooks.finish(), 0);
    }

    #[test]
    fn what_finds_the_queue_full_is_counted_and_told_until_it_is_empty() {
        let mut hooks = Hooks::start().unwrap();
        let mut slow = call("on_ban", &["/bin/sleep", "1476"]);
        slow.timeout = Duration::from_secs(200);
        hooks.call(slow);
        until("it runs", || hooks.queue.is_empty());
        for _ in 0..MOST_WAITING + 7 {
            hooks.call(call("on_ban", &["/bin/true"]));
        }
        assert!(hooks.lost().unwrap().contains("7 were dropped"));
        hooks.call(call("on_ban", &["/bin/true"]));
        assert!(hooks.lost().unwrap().contains("8 were dropped"));
        let start = Instant::now();
        assert_eq!(hooks.finish(), 1 + MOST_WAITING);
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_loss_is_told_once_at_least_and_over_when_nothing_waits() {
        let mut hooks = Hooks::start().unwrap();
        hooks.lost = 3;
        assert!(hooks.queue.is_empty() && hooks.lost().is_some());
        assert_eq!((hooks.lost(), hooks.lost()), (None, None));
        assert_eq!(hooks.finish(), 0);
    }
}
