//! Visitors that do not stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::World;
use super::http::Connection;
use super::world::SERVER4;

const VISITORS: usize = 4;

/// Visitors on connections of their own, each asking for `/probe/ID` and `/closed/ID` in turn: the
/// first is hit by the jail `probe`, the second also writes an error line.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    visitors: Vec<JoinHandle<Outcome>>,
}

/// What the visitors saw. Ids are `VISITOR-NUMBER-end`.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Answered requests that write an access line only.
    pub(crate) probes: Vec<String>,
    /// Answered requests that write an access line and an error line.
    pub(crate) closed: Vec<String>,
    /// Requests that ended without an answer.
    pub(crate) failed: Vec<String>,
    /// The longest that a request took, a new connection included where there was one.
    pub(crate) slowest: Duration,
}

impl Load {
    pub(crate) fn start(world: &World) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let visitors = (0..VISITORS)
            .map(|visitor| {
                let over = Arc::clone(&over);
                let clients = world.clients();
                std::thread::spawn(move || {
                    let from = format!("198.51.100.{}", 200 + visitor);
                    let mut outcome = Outcome::default();
                    let mut open = None;
                    for n in 0.. {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        let (kind, answered) = if n % 2 == 0 {
                            ("probe", &mut outcome.probes)
                        } else {
                            ("closed", &mut outcome.closed)
                        };
                        let id = format!("{visitor}-{n}-end");
                        let ask = |mut connection: Connection| {
                            connection.get(&format!("/{kind}/{id}"), "")?;
                            Ok(connection)
                        };
                        // A reload closes idle connections, and a browser then asks again.
                        let asked = Instant::now();
                        let answer = match open.take().map(ask) {
                            Some(Ok(connection)) => Ok(connection),
                            Some(Err(_)) | None => {
                                Connection::open(&clients, &from, SERVER4).and_then(ask)
                            }
                        };
                        outcome.slowest = outcome.slowest.max(asked.elapsed());
                        match answer {
                            Ok(connection) => {
                                open = Some(connection);
                                answered.push(id);
                            }
                            Err(error) => outcome.failed.push(format!("{id}: {error}")),
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    outcome
                })
            })
            .collect();
        Load { over, visitors }
    }

    pub(crate) fn stop(self) -> Outcome {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for visitor in self.visitors {
            let outcome = visitor.join().expect("a visitor does not panic");
            all.probes.extend(outcome.probes);
            all.closed.extend(outcome.closed);
            all.failed.extend(outcome.failed);
            all.slowest = all.slowest.max(outcome.slowest);
        }
        all
    }
}
