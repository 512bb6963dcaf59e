//! The administrator's programs `on_ban` and `on_unban`, run one at a time on a thread. The engine
//! does not wait for them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::JailName;
use crate::sys::program::{self, Failure};

/// Calls queued for the thread at most.
const MOST_WAITING: usize = 1_000;
/// How long hooks may run after the engine's end began.
const GRACE: Duration = Duration::from_secs(1);
/// Failing hooks named in one alarm.
const MOST_NAMED: usize = 3;

/// One run of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookRun {
    /// The jail.
    pub jail: JailName,
    /// `on_ban` or `on_unban`.
    pub key: &'static str,
    /// The banned client.
    pub host: String,
    /// The program and its arguments, placeholders replaced.
    pub argv: Vec<String>,
    /// After this time it is killed.
    pub timeout: Duration,
}

/// The queue to the thread, and the failures there.
pub struct Hooks {
    queue: Sender<HookRun>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    shared: Arc<Shared>,
    /// Calls dropped since the queue was empty last.
    lost: u64,
    /// The loss is reported.
    reported: bool,
}

#[derive(Default)]
struct Shared {
    /// The first failure of each hook since its last success.
    failing: Mutex<BTreeMap<(JailName, &'static str), String>>,
    /// From then on no hook runs.
    stop: OnceLock<Instant>,
    /// Calls that did not run to their end because of that.
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
            reported: false,
        })
    }

    /// Queues a call; where [`MOST_WAITING`] wait, drops and counts it.
    pub fn call(&mut self, call: HookRun) {
        if self.queue.try_send(call).is_err() {
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// The hooks that fail, each from its first failure to its next success.
    pub fn failing(&self) -> Option<String> {
        let failing = self.shared.failing();
        let more = failing.len().saturating_sub(MOST_NAMED);
        let mut texts: Vec<String> = failing.values().take(MOST_NAMED).cloned().collect();
        if more > 0 {
            texts.push(format!("and {more} more"));
        }
        (!texts.is_empty()).then(|| {
            format!(
                "hooks fail, bans work without them (after a repair run `pipeban reload`): {}",
                texts.join("; ")
            )
        })
    }

    /// Dropped calls, until the queue is empty; reported at least once.
    pub fn lost(&mut self) -> Option<String> {
        if self.lost == 0 || (self.reported && self.queue.is_empty()) {
            (self.lost, self.reported) = (0, false);
            return None;
        }
        self.reported = true;
        Some(format!(
            "hooks are slower than bans: {MOST_WAITING} wait, {} were dropped (make the program \
             return at once, or lower `hook_timeout` or `bans_per_minute`)",
            self.lost
        ))
    }

    /// Forgets failures: a new configuration may name other programs.
    pub fn forget(&self) {
        self.shared.failing().clear();
    }

    /// The engine ends: kills what runs for another second.
    pub fn stop(&self) {
        self.shared.stop.get_or_init(|| Instant::now() + GRACE);
    }

    /// Ends the thread, and returns how many calls did not run to their end.
    pub fn finish(self) -> usize {
        self.stop();
        drop(self.queue);
        // A program that survives SIGKILL is not waited for.
        let _ = self.ended.recv_timeout(GRACE + GRACE);
        self.shared.left.load(Ordering::Relaxed)
    }
}

fn run(call: &HookRun, shared: &Shared) {
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
            let HookRun {
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

    fn call(key: &'static str, argv: &[&str]) -> HookRun {
        HookRun {
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
    fn a_failing_hook_is_reported_from_its_first_failure_to_its_next_success() {
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
        assert!(hooks.failing().unwrap().contains("/bin/false"));
        hooks.forget();
        assert_eq!(hooks.failing(), None);
        assert_eq!(hooks.finish(), 0);
    }

    #[test]
    fn dropped_calls_are_reported_until_the_queue_is_empty() {
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
    fn a_loss_is_reported_at_least_once() {
        let mut hooks = Hooks::start().unwrap();
        hooks.lost = 3;
        assert!(hooks.queue.is_empty() && hooks.lost().is_some());
        assert_eq!((hooks.lost(), hooks.lost()), (None, None));
        assert_eq!(hooks.finish(), 0);
    }
}
