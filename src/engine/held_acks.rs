//! Acknowledgements that wait for a database that cannot be written: the latest of each stream.

use std::collections::HashMap;

use super::decision::AfterCommit;

#[derive(Debug, Default)]
pub(super) struct HeldAcks {
    /// Connection and offset, by stream.
    streams: HashMap<u64, (u64, u64)>,
}

impl HeldAcks {
    /// Keeps an acknowledgement; gives back what need not wait.
    pub(super) fn hold(&mut self, after: AfterCommit) -> Option<AfterCommit> {
        match after {
            AfterCommit::Ack {
                connection,
                stream,
                offset,
                ..
            } => {
                let (last, most) = self.streams.entry(stream).or_default();
                (*last, *most) = (connection, offset.max(*most));
                None
            }
            answer @ AfterCommit::Answer { .. } => Some(answer),
        }
    }

    /// All of them: what they acknowledge is committed.
    pub(super) fn take(&mut self) -> Vec<AfterCommit> {
        let streams = self.streams.drain();
        let acks = streams.map(|(stream, (connection, offset))| AfterCommit::Ack {
            connection,
            stream,
            offset,
            log_lines: Vec::new(),
        });
        acks.collect()
    }
}
