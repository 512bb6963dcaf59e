//! Netlink, as much of it as a ban needs: messages with nested attributes out, attributes in.
//!
//! An encoder of pipeban's, because the crates for nftables know no `ct` expression, no set ids and no
//! batch, and abort on answers they do not expect. All numbers that nftables reads are big-endian;
//! rtnetlink and sock_diag use the host's order.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;
pub(super) const DUMP: u16 = 0x300;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
/// The two upper bits of an attribute's type are flags.
const TYPE_MASK: u16 = 0x3fff;
/// Answers are made while the request is being sent; only a broken kernel needs this.
const PATIENCE_SECONDS: i64 = 5;
/// Messages read at a time: a flood of them must not keep the caller here.
const DRAINED: usize = 1_000;
/// The kernel fills at most 32 KiB per message of a dump.
const RECEIVE: usize = 64 * 1024;

/// Messages being written, one after the other, into one buffer for one send.
pub(super) struct Writer {
    bytes: Vec<u8>,
    message: usize,
    sequence: u32,
}

/// An attribute with its type.
pub(super) enum Attribute<'a> {
    U32(u16, u32),
    U64(u16, u64),
    Bytes(u16, &'a [u8]),
    Text(u16, &'a str),
    Nest(u16, &'a [Attribute<'a>]),
}

/// An open nested attribute; ends with [`Writer::end`].
#[must_use]
pub(super) struct Nest(usize);

impl Writer {
    /// The first message gets `sequence + 1`.
    pub(super) fn after(sequence: u32) -> Writer {
        Writer {
            bytes: Vec::new(),
            message: 0,
            sequence,
        }
    }

    /// Ends the message before and begins one; `fixed` is the header of the message's family.
    pub(super) fn message(&mut self, kind: u16, flags: u16, fixed: &[u8]) -> u32 {
        self.close();
        self.sequence = self.sequence.wrapping_add(1);
        self.message = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        self.pad();
        self.sequence
    }

    pub(super) fn attributes(&mut self, attributes: &[Attribute<'_>]) {
        for attribute in attributes {
            match attribute {
                Attribute::U32(kind, value) => self.bytes(*kind, &value.to_be_bytes()),
                Attribute::U64(kind, value) => self.bytes(*kind, &value.to_be_bytes()),
                Attribute::Bytes(kind, value) => self.bytes(*kind, value),
                Attribute::Text(kind, value) => {
                    let start = self.open(*kind);
                    self.bytes.extend_from_slice(value.as_bytes());
                    self.bytes.push(0);
                    self.end(start);
                }
                Attribute::Nest(kind, inner) => {
                    let nest = self.nest(*kind);
                    self.attributes(inner);
                    self.end(nest);
                }
            }
        }
    }

    fn bytes(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.end(start);
    }

    /// For a list whose length is not known.
    pub(super) fn nest(&mut self, kind: u16) -> Nest {
        self.open(kind | NESTED)
    }

    /// Writes the attribute's length. Callers keep an attribute under 64 KiB.
    pub(super) fn end(&mut self, nest: Nest) {
        let length = self.bytes.len() - nest.0;
        debug_assert!(length <= usize::from(u16::MAX));
        let length = u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes();
        if let Some(place) = self.bytes.get_mut(nest.0..nest.0 + 2) {
            place.copy_from_slice(&length);
        }
        self.pad();
    }

    /// The bytes for one send, and the sequence number of the last message.
    pub(super) fn finish(mut self) -> (Vec<u8>, u32) {
        self.close();
        (self.bytes, self.sequence)
    }

    fn open(&mut self, kind: u16) -> Nest {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        Nest(start)
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn close(&mut self) {
        let length = u32::try_from(self.bytes.len() - self.message).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(self.message..self.message + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }
}

/// One message of the kernel.
pub(super) struct Message<'a> {
    pub(super) sequence: u32,
    pub(super) body: Body<'a>,
}

pub(super) enum Body<'a> {
    /// An answer: type and bytes after the netlink header.
    Data(u16, &'a [u8]),
    /// 0 is an acknowledgement; else a negative errno.
    Error(i32),
    /// The end of a dump.
    Done,
}

/// Splits what one receive brought; stops at what is no message.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let whole = bytes.get(..length)?;
        let payload = whole.get(HEADER..)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        let kind = u16_at(whole, 4)?;
        let body = match kind {
            ERROR => Body::Error(i32::from_ne_bytes(array(payload, 0)?)),
            DONE => Body::Done,
            _ => Body::Data(kind, payload),
        };
        Some(Message {
            sequence: u32_at(whole, 8)?,
            body,
        })
    })
}

/// The attributes in `bytes`: type without flags, and value.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The first attribute of that type.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(k, value)| (k == kind).then_some(value))
}

/// Bytes `at..at + N`.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_ne_bytes)
}

/// Text up to its NUL.
pub(super) fn text(value: &[u8]) -> &[u8] {
    value.split(|b| *b == 0).next().unwrap_or(value)
}

/// A connected netlink socket of the network namespace of the thread that opened it.
pub(super) struct Socket {
    fd: OwnedFd,
    send_buffer: usize,
    buffer: Vec<u8>,
    /// Last sequence number used.
    pub(super) sequence: u32,
}

impl Socket {
    pub(super) fn open(protocol: SockProtocol) -> Result<Socket, Errno> {
        let fd = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        socket::setsockopt(
            &fd,
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(PATIENCE_SECONDS),
        )?;
        // A batch that fails brings an answer for each bad message. Without the capability the
        // default has to do.
        let _ = socket::setsockopt(&fd, sockopt::RcvBufForce, &(1 << 20));
        socket::connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Socket {
            fd,
            send_buffer: 0,
            buffer: vec![0; RECEIVE],
            sequence: 0,
        })
    }

    /// Sends messages in one piece: a batch must not be split.
    pub(super) fn send(&mut self, messages: Writer) -> Result<(), Errno> {
        let (bytes, last) = messages.finish();
        self.sequence = last;
        // The kernel wants the whole batch in the send buffer, else EMSGSIZE.
        let need = bytes.len() + 4096;
        if need > self.send_buffer.max(64 * 1024) {
            // In a container without the right to force it, up to wmem_max; send() then tells.
            if socket::setsockopt(&self.fd, sockopt::SndBufForce, &need).is_err() {
                socket::setsockopt(&self.fd, sockopt::SndBuf, &need)?;
            }
            self.send_buffer = need;
        }
        loop {
            match socket::send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }

    /// The next bunch of answers.
    pub(super) fn receive(&mut self) -> Result<&[u8], Errno> {
        loop {
            match socket::recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
                Ok(length) => return Ok(self.buffer.get(..length).unwrap_or(&[])),
            }
        }
    }

    /// Sends a batch of nftables whose last message but one asks for an acknowledgement, and
    /// reads the answer: the inner error is the kernel's refusal of all of it.
    pub(super) fn transact(
        &mut self,
        batch: Writer,
        begin: u32,
    ) -> Result<Result<(), Errno>, Errno> {
        self.send(batch)?;
        let last = self.sequence.wrapping_sub(1);
        let mut failed = None;
        loop {
            for message in messages(self.receive()?) {
                // Answers to a batch before this one may still come.
                if message.sequence.wrapping_sub(begin) > last.wrapping_sub(begin) {
                    continue;
                }
                if let Body::Error(code) = message.body
                    && code != 0
                {
                    failed.get_or_insert(Errno::from_raw(-code));
                }
                // An error of the first message is about the whole batch; no more will come.
                let whole = message.sequence == begin && failed.is_some();
                if message.sequence == last || whole {
                    return Ok(failed.map_or(Ok(()), Err));
                }
            }
        }
    }

    /// Sends one request and gives every answer to `each`, to the end of the dump, the
    /// acknowledgement or, where `single`, the first answer. `each` returns false to stop early
    /// (the socket should be dropped then: the rest of the dump is still to come).
    pub(super) fn ask(
        &mut self,
        request: Writer,
        single: bool,
        mut each: impl FnMut(u16, &[u8]) -> bool,
    ) -> Result<(), Errno> {
        self.send(request)?;
        let wanted = self.sequence;
        loop {
            for message in messages(self.receive()?) {
                if message.sequence != wanted {
                    continue;
                }
                match message.body {
                    Body::Done | Body::Error(0) => return Ok(()),
                    Body::Error(code) => return Err(Errno::from_raw(-code)),
                    Body::Data(kind, payload) => {
                        if !each(kind, payload) || single {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }
}

/// A socket that does not block and hears of these groups, given as bits.
pub(super) fn subscribe(protocol: SockProtocol, groups: u32) -> Result<OwnedFd, Errno> {
    let socket = socket::socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        protocol,
    )?;
    socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// Reads and discards the messages that wait for a subscriber, up to a bound; returns
/// whether there were any.
pub(super) fn drain(subscribed: &OwnedFd) -> Result<bool, Errno> {
    let mut news = false;
    let mut buffer = [0; 64];
    for _ in 0..DRAINED {
        match socket::recv(subscribed.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            // More than the socket holds.
            Ok(_) | Err(Errno::ENOBUFS) => news = true,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(news),
            Err(errno) => return Err(errno),
        }
    }
    Ok(news)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut w = Writer::after(6);
        assert_eq!(w.message(0x0a0c, REQUEST, &[1, 0, 0, 0]), 7);
        let inner = [Attribute::U32(3, 0x0102_0304), Attribute::U64(4, 5)];
        w.attributes(&[Attribute::Text(1, "abc"), Attribute::Nest(2, &inner)]);
        w.message(17, ACK, &[]);
        let (bytes, last) = w.finish();
        assert_eq!(last, 8);

        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.len(), 2);
        let Body::Data(kind, payload) = all[0].body else {
            panic!("no data")
        };
        assert_eq!((kind, all[0].sequence), (0x0a0c, 7));
        let attrs = &payload[4..];
        assert_eq!(attribute(attrs, 1).map(text), Some(&b"abc"[..]));
        let inner = attribute(attrs, 2).unwrap();
        assert_eq!(attribute(inner, 3), Some(&[1, 2, 3, 4][..]));
        assert_eq!(attribute(inner, 4), Some(&[0, 0, 0, 0, 0, 0, 0, 5][..]));
        assert_eq!(attribute(inner, 9), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_readers_loop_or_panic(bytes: Vec<u8>) {
            for message in messages(&bytes).take(1000) {
                if let Body::Data(_, payload) = message.body {
                    let _ = attributes(payload).take(1000).count();
                }
            }
            let _ = attributes(&bytes).take(1000).count();
        }
    }
}
