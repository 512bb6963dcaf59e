//! What the worker gives up beside root: files, sockets, programs, processes, signals. Three layers;
//! a kernel that lacks one is reported, and the others hold.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope,
};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use serde::{Deserialize, Serialize};

/// Descriptors that a confined process may have open. A worker has about ten.
const MAX_DESCRIPTORS: u64 = 64;

/// What was done, for people: `on`, or why it is not. Empty: not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Confined {
    /// No file but those below /proc, which are read; no TCP; no signals.
    pub landlock: String,
    /// None but the system calls that matching needs.
    pub seccomp: String,
    /// No file grows, no core is written, few descriptors.
    pub limits: String,
}

impl Confined {
    /// The layers that the kernel does not enforce, each with the reason.
    pub fn missing(&self) -> Vec<String> {
        let layers = [
            ("landlock", &self.landlock),
            ("seccomp", &self.seccomp),
            ("limits", &self.limits),
        ];
        let missing = layers
            .iter()
            .filter(|(_, state)| !matches!(state.as_str(), "on" | ""));
        missing
            .map(|(layer, why)| format!("{layer} ({why})"))
            .collect()
    }
}

/// Confines the calling thread, and the threads that it starts from now on, for good. The limits
/// are those of the whole process.
pub fn confine() -> Confined {
    let said = |done: Result<(), String>| match done {
        Ok(()) => "on".to_owned(),
        Err(error) => error,
    };
    Confined {
        limits: said(limit().map_err(|error| error.to_string())),
        landlock: said(restrict_files()),
        // The last one: it takes away the calls of the others.
        seccomp: said(restrict_calls()),
    }
}

fn limit() -> io::Result<()> {
    for (resource, most) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_NOFILE, MAX_DESCRIPTORS),
    ] {
        setrlimit(resource, most, most)?;
    }
    Ok(())
}

fn restrict_files() -> Result<(), String> {
    const ABI_USED: ABI = ABI::V6;
    let restrict = || {
        let rules = Ruleset::default()
            .handle_access(AccessFs::from_all(ABI_USED))?
            .handle_access(AccessNet::from_all(ABI_USED))?
            .scope(Scope::from_all(ABI_USED))?
            .create()?
            // Whether a process is Apache's.
            .add_rules(landlock::path_beneath_rules(
                ["/proc"],
                AccessFs::ReadFile | AccessFs::ReadDir,
            ))?;
        rules.restrict_self()
    };
    let restricted: Result<_, landlock::RulesetError> = restrict();
    match restricted.map(|done| done.ruleset) {
        Ok(RulesetStatus::FullyEnforced) => Ok(()),
        Ok(RulesetStatus::PartiallyEnforced) => {
            Err("in part: the kernel is older than 6.12".to_owned())
        }
        Ok(RulesetStatus::NotEnforced) => Err("the kernel has no landlock".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn restrict_calls() -> Result<(), String> {
    Err("not known for this architecture".to_owned())
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn restrict_calls() -> Result<(), String> {
    prctl::set_no_new_privs().map_err(|error| error.to_string())?;
    let install = || -> Result<(), seccompiler::Error> {
        // The flags of clone3 are out of a filter's sight: libc then uses clone.
        let only = [(libc::SYS_clone3, Vec::new())].into();
        let missing = libc::ENOSYS.cast_unsigned();
        seccompiler::apply_filter(&program(
            only,
            SeccompAction::Allow,
            SeccompAction::Errno(missing),
        )?)?;
        let refused = libc::EPERM.cast_unsigned();
        let program = program(
            calls()?,
            SeccompAction::Errno(refused),
            SeccompAction::Allow,
        )?;
        seccompiler::apply_filter(&program)
    };
    install().map_err(|error| error.to_string())
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn program(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    others: SeccompAction,
    these: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(calls, others, these, arch)?.try_into()
}

/// The calls of threads that compute, and that talk over descriptors they have.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn calls() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let plain = [
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_lseek,
        libc::SYS_dup,
        libc::SYS_recvmsg,
        libc::SYS_recvfrom,
        libc::SYS_sendmsg,
        libc::SYS_sendto,
        libc::SYS_shutdown,
        libc::SYS_ppoll,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_brk,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_membarrier,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_set_robust_list,
        libc::SYS_set_tid_address,
        libc::SYS_rseq,
        libc::SYS_clone3,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_clock_gettime,
        libc::SYS_clock_getres,
        libc::SYS_gettimeofday,
        libc::SYS_getrandom,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
    ];
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> =
        plain.into_iter().map(|call| (call, Vec::new())).collect();

    let bits = |argument, bits: i32, value: u64| {
        let mask = SeccompCmpOp::MaskedEq(u64::from(bits.cast_unsigned()));
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, mask, value)
    };
    let is = |argument, value: u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
    };
    let mut only = |call, conditions: Vec<SeccompCondition>| -> Result<(), _> {
        let rule = SeccompRule::new(conditions)?;
        calls.entry(call).or_default().push(rule);
        Ok::<(), seccompiler::BackendError>(())
    };
    // To read.
    let writes = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;
    only(libc::SYS_openat, vec![bits(2, writes, 0)?])?;
    // No code is added.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        only(call, vec![bits(2, libc::PROT_EXEC, 0)?])?;
    }
    // A thread, no process.
    let thread = libc::CLONE_THREAD;
    let set = u64::from(thread.cast_unsigned());
    only(libc::SYS_clone, vec![bits(0, thread, set)?])?;
    // Its name, and the names of its memory.
    for option in [libc::PR_SET_NAME, libc::PR_SET_VMA] {
        only(
            libc::SYS_prctl,
            vec![is(0, u64::from(option.cast_unsigned()))?],
        )?;
    }
    for command in [libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_GETFL] {
        only(
            libc::SYS_fcntl,
            vec![is(1, u64::from(command.cast_unsigned()))?],
        )?;
    }
    // To read limits.
    only(libc::SYS_prlimit64, vec![is(0, 0)?, is(2, 0)?])?;
    // abort(3)
    let me = u64::from(std::process::id());
    let abort = u64::from(libc::SIGABRT.cast_unsigned());
    only(libc::SYS_tgkill, vec![is(0, me)?, is(2, abort)?])?;
    Ok(calls)
}

#[cfg(test)]
mod tests;
