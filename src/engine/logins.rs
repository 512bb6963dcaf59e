//! From where somebody logged in by ssh, as wtmp (utmp(5)) says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::libc::{USER_PROCESS, utmpx};

use crate::jail::unmap;

/// Bytes read of a file, its end: some ten thousand logins.
const MOST_BYTES: u64 = 4 << 20;

/// The file, and what logrotate made of its predecessor.
pub(super) fn files(wtmp: &Path) -> [PathBuf; 2] {
    let mut rotated = wtmp.as_os_str().to_owned();
    rotated.push(".1");
    [wtmp.to_owned(), rotated.into()]
}

/// The last login from each address.
///
/// # Errors
/// The file cannot be read. One that is not there has no logins.
pub(super) fn read(path: &Path) -> io::Result<BTreeMap<IpAddr, Timestamp>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        opened => opened?,
    };
    let record = size_of::<utmpx>() as u64;
    let length = file.metadata()?.len() / record * record;
    let start = length.saturating_sub(MOST_BYTES / record * record);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length - start).read_to_end(&mut bytes)?;
    Ok(logins(&bytes))
}

fn logins(bytes: &[u8]) -> BTreeMap<IpAddr, Timestamp> {
    let mut last: BTreeMap<IpAddr, Timestamp> = BTreeMap::new();
    for (addr, at) in bytes.chunks_exact(size_of::<utmpx>()).filter_map(login) {
        let known = last.entry(addr).or_insert(at);
        *known = at.max(*known);
    }
    last
}

/// A login from elsewhere; `None`: something else. sshd writes these, once somebody is in.
fn login(record: &[u8]) -> Option<(IpAddr, Timestamp)> {
    let kind = i16::from_ne_bytes(array(record, offset_of!(utmpx, ut_type))?);
    (kind == USER_PROCESS).then_some(())?;
    // struct timeval, of two 32-bit or two 64-bit numbers as the architecture has it
    let at = offset_of!(utmpx, ut_tv);
    let seconds = match offset_of!(utmpx, ut_addr_v6) - at {
        8 => i64::from(i32::from_ne_bytes(array(record, at)?)),
        _ => i64::from_ne_bytes(array(record, at)?),
    };
    let time = Timestamp::from_second(seconds).ok()?;
    let addr: [u8; 16] = array(record, offset_of!(utmpx, ut_addr_v6))?;
    let addr = match addr {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => named(record)?,
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Ipv4Addr::new(a, b, c, d).into(),
        v6 => Ipv6Addr::from(v6).into(),
    };
    Some((unmap(addr), time))
}

/// Some write the address as the host's name only.
fn named(record: &[u8]) -> Option<IpAddr> {
    let start = offset_of!(utmpx, ut_host);
    let host = record.get(start..start + 256)?;
    let text = host.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// What `utmpdump` shows, and makes into a file again.
    const TEXT: &str = "\
[2] [00000] [~~  ] [reboot  ] [~           ] [6.1.0-28-amd64      ] [0.0.0.0        ] [2026-11-20T08:00:00,000000+00:00]
[6] [00700] [tty1] [LOGIN   ] [tty1        ] [                    ] [0.0.0.0        ] [2026-11-20T08:00:05,000000+00:00]
[7] [00900] [ts/0] [alice   ] [pts/0       ] [203.0.113.5         ] [203.0.113.5    ] [2026-11-21T10:00:00,000000+00:00]
[8] [00900] [ts/0] [        ] [pts/0       ] [                    ] [0.0.0.0        ] [2026-11-21T11:00:00,000000+00:00]
[7] [00901] [ts/0] [alice   ] [pts/0       ] [203.0.113.5         ] [203.0.113.5    ] [2026-11-21T12:00:00,000000+00:00]
[7] [00902] [ts/1] [bob     ] [pts/1       ] [2001:db8::7         ] [2001:db8::7    ] [2026-11-22T09:00:00,000000+00:00]
[7] [00903] [tty2] [carol   ] [tty2        ] [                    ] [0.0.0.0        ] [2026-11-22T09:30:00,000000+00:00]
";

    #[test]
    fn the_last_login_from_each_address_is_read_of_a_real_wtmp() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wtmp");
        let mut dump = Command::new("utmpdump")
            .arg("-r")
            .stdin(Stdio::piped())
            .stdout(File::create(&path).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        dump.stdin
            .take()
            .unwrap()
            .write_all(TEXT.as_bytes())
            .unwrap();
        assert!(dump.wait().unwrap().success());
        let shown: Vec<String> = read(&path)
            .unwrap()
            .iter()
            .map(|(addr, at)| format!("{addr} {at}"))
            .collect();
        assert_eq!(
            shown,
            [
                "203.0.113.5 2026-11-21T12:00:00Z",
                "2001:db8::7 2026-11-22T09:00:00Z"
            ]
        );
        // half a record at the end, as while one is written
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend([7; 100]);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap().len(), 2);
        assert_eq!(read(&dir.path().join("none")).unwrap().len(), 0);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0u8..9, 0..2_000)) {
            let _ = logins(&bytes);
        }
    }
}
