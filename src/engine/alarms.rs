//! What is wrong now, by key: logged when it begins and when it ends, shown by `status` between.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::alert::{Alerts, Details, Severity};
use crate::config;

/// Between two log lines about an alarm whose text changes.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// What an owner says about one of its alarms: `None` while nothing is wrong.
pub(super) type Check = (&'static str, Severity, Option<String>);

pub(super) struct Alarms {
    alerts: Alerts,
    raised: BTreeMap<&'static str, Alarm>,
}

struct Alarm {
    text: String,
    logged: Instant,
}

impl Alarms {
    pub(super) fn new(alerts: Alerts) -> Alarms {
        Alarms {
            alerts,
            raised: BTreeMap::new(),
        }
    }

    /// Logs an event that is over already.
    pub(super) fn log(&self, severity: Severity, text: &str) {
        self.alerts.log(severity, text);
    }

    /// Logs an event about a client, with its fields.
    pub(super) fn log_event(&self, severity: Severity, text: &str, details: Option<Details>) {
        self.alerts.log_event(severity, text, details);
    }

    /// Logs an event that a client can cause at will.
    pub(super) fn log_limited(&self, severity: Severity, text: &str) {
        self.alerts.log_limited(severity, text);
    }

    pub(super) fn configure(&self, settings: &config::Syslog) {
        self.alerts.configure(settings);
    }

    pub(super) fn raise(&mut self, key: &'static str, severity: Severity, text: String) {
        let now = Instant::now();
        let logged = match self.raised.get(key) {
            Some(alarm) if alarm.text == text || now < alarm.logged + LOG_AGAIN => alarm.logged,
            _ => {
                self.log(severity, &text);
                now
            }
        };
        self.raised.insert(key, Alarm { text, logged });
    }

    pub(super) fn is_raised(&self, key: &str) -> bool {
        self.raised.contains_key(key)
    }

    pub(super) fn clear(&mut self, key: &str) {
        if let Some(alarm) = self.raised.remove(key) {
            self.log(Severity::Notice, &format!("over: {}", alarm.text));
        }
    }

    /// Raises or clears, as the owner says.
    pub(super) fn set(&mut self, (key, severity, problem): Check) {
        match problem {
            Some(text) => self.raise(key, severity, text),
            None => self.clear(key),
        }
    }

    /// All that is wrong now, each with what to do.
    pub(super) fn texts(&self) -> Vec<String> {
        let raised = self.raised.values().map(|alarm| alarm.text.clone());
        raised.chain(self.alerts.troubles()).collect()
    }

    /// Logs what is queued.
    pub(super) fn finish(self) {
        self.alerts.finish();
    }
}
