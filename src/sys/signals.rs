//! Signals, set explicitly: Apache's first generation starts loggers with other dispositions than
//! later ones.

use std::io;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};

/// Ignores these signals.
///
/// # Errors
/// A signal that cannot be ignored.
pub fn ignore(signals: &[Signal]) -> io::Result<()> {
    set(signals, SigHandler::SigIgn)
}

/// Gives these signals their default action.
///
/// # Errors
/// A signal whose action cannot be set.
pub fn set_default(signals: &[Signal]) -> io::Result<()> {
    set(signals, SigHandler::SigDfl)
}

/// Ends this process with status 0 the moment the signal arrives, whatever it is doing.
///
/// # Errors
/// A signal whose action cannot be set.
pub fn exit_zero_on(signal: Signal) -> io::Result<()> {
    set(&[signal], SigHandler::Handler(exit_zero))
}

/// Holds all signals back until the value is dropped.
///
/// # Errors
/// What the kernel said.
pub fn hold_all() -> io::Result<Held> {
    Ok(Held(
        SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?,
    ))
}

/// Lets all signals through again, in a child that was forked while they were held back.
///
/// # Errors
/// What the kernel said.
pub fn let_all_through() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Signals are held back while this lives.
#[derive(Debug)]
#[must_use]
pub struct Held(SigSet);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.thread_set_mask();
    }
}

extern "C" fn exit_zero(_: nix::libc::c_int) {
    // SAFETY: `_exit` may be called in a signal handler.
    unsafe { nix::libc::_exit(0) }
}

fn set(signals: &[Signal], handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    for signal in signals {
        // SAFETY: the handlers in use are "ignore", "default" and `exit_zero`, which calls only
        // what is allowed in a handler.
        unsafe { sigaction(*signal, &action) }?;
    }
    Ok(())
}
