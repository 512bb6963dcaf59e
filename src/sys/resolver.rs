//! Names of addresses and addresses of names, as this host resolves them: nsswitch.conf,
//! `/etc/hosts`, the resolver. std does not tell an answer "there is none" from no answer.

use std::ffi::{CStr, CString};
use std::net::{IpAddr, SocketAddr};
use std::ptr;

use nix::libc;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

/// What a name server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// There is one.
    Found(T),
    /// There is none.
    None,
    /// No answer: a time-out, a failing server, no server; why.
    Failed(String),
}

/// The name of an address (PTR record), in lower case and without the final dot.
pub fn name_of(addr: IpAddr) -> Answer<String> {
    let address = SockaddrStorage::from(SocketAddr::new(addr, 0));
    let mut name = [0 as libc::c_char; libc::NI_MAXHOST as usize];
    // SAFETY: the pointers and lengths describe `address` and `name`, which outlive the call; the
    // service is not requested.
    let result = unsafe {
        libc::getnameinfo(
            address.as_ptr(),
            address.len(),
            name.as_mut_ptr(),
            libc::NI_MAXHOST,
            ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if result != 0 {
        return failure(result);
    }
    // SAFETY: getnameinfo has written a text that ends with a zero byte into `name`.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    let name = name.to_string_lossy().to_ascii_lowercase();
    Answer::Found(name.trim_end_matches('.').to_owned())
}

/// Whether a name has this address (A or AAAA record).
pub fn has_address(name: &str, addr: IpAddr) -> Answer<()> {
    let Ok(name) = CString::new(name) else {
        return Answer::None;
    };
    // SAFETY: zeros are a valid value of this structure of numbers and null pointers.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_family = if addr.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let mut first = ptr::null_mut();
    // SAFETY: `name` ends with a zero byte; all pointers are valid for the call.
    let result =
        unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const hints, &raw mut first) };
    if result != 0 {
        return failure(result);
    }
    let mut found = false;
    let mut next = first;
    // SAFETY: getaddrinfo has made the list, which ends with a null pointer, and each address in it
    // has the length that its entry says.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: as above.
        let address = unsafe { SockaddrStorage::from_raw(entry.ai_addr, Some(entry.ai_addrlen)) };
        let v4 = |a: &SockaddrStorage| a.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        let v6 = |a: &SockaddrStorage| a.as_sockaddr_in6().map(|a| IpAddr::from(a.ip()));
        found |= address.and_then(|a| v4(&a).or_else(|| v6(&a))) == Some(addr);
        next = entry.ai_next;
    }
    // SAFETY: the list is of getaddrinfo, and nothing refers to it any more.
    unsafe { libc::freeaddrinfo(first) };
    if found {
        Answer::Found(())
    } else {
        Answer::None
    }
}

fn failure<T>(code: libc::c_int) -> Answer<T> {
    /// glibc: the name exists, and has no such record.
    const EAI_NODATA: libc::c_int = -5;
    if matches!(code, libc::EAI_NONAME | EAI_NODATA) {
        return Answer::None;
    }
    // SAFETY: gai_strerror returns a text that ends with a zero byte and is never freed.
    let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
    Answer::Failed(text.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_127_0_0_1_and_has_no_other_address() {
        let local = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(has_address("localhost", local), Answer::Found(()));
        let other = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(has_address("localhost", other), Answer::None);
        assert!(matches!(name_of(local), Answer::Found(_)));
        assert_eq!(has_address("a\0b", local), Answer::None);
    }
}
