//! The few things that processes need from the kernel and that no library gives safely: identity, death notices, waiting, signals.
//!
//! A process id alone proves nothing, since ids are used again: [`Identity`] adds the start time from `/proc/PID/stat` (field 22,
//! proc(5)), and while a child is watched its pidfd stands for it. Waiting is on a futex with a time limit (I10), never on a condition
//! variable in the segment: glibc's loses a wake-up when a waiter is killed.

use crate::sync::{AtomicU32, Ordering};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// Which process: its id and when it started, in clock ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// Start time; 0 when /proc does not tell.
    pub start_time: u64,
}

impl Identity {
    /// This process.
    pub fn current() -> Self {
        let pid = std::process::id();
        Self { pid, start_time: start_time(pid).unwrap_or(0) }
    }

    /// True when a process of this id and start time exists and is not just waiting to be reaped.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }
}

/// Start time of a live process; `None` when there is none or it is a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may itself hold spaces and parentheses.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

/// A digest of the kernel's boot id, so that a segment from before a reboot is known for one.
pub fn boot_digest() -> u64 {
    static DIGEST: OnceLock<u64> = OnceLock::new();
    *DIGEST.get_or_init(|| {
        let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ *b as u64).wrapping_mul(0x0100_0000_01b3)) | 1
    })
}

/// Opens a pidfd on a child that was not reaped yet.
///
/// # Errors
/// What pidfd_open(2) says.
pub fn pidfd_open(pid: u32) -> std::io::Result<OwnedFd> {
    // SAFETY: the system call takes two integers and returns a new file descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0u32) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal to the very process that the pidfd stands for.
///
/// # Errors
/// What pidfd_send_signal(2) says.
pub fn pidfd_send(pidfd: &OwnedFd, signal: Signal) -> std::io::Result<()> {
    let (fd, none) = (pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: the system call takes a live descriptor, a signal number, no information and no flags.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as libc::c_int, none, 0u32) };
    if sent == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Sleeps while `*word == seen`, at most for `limit`. Returns early for any reason: the caller looks again.
pub fn futex_wait(word: &AtomicU32, seen: u32, limit: Duration) {
    let time = libc::timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos() as _ };
    // SAFETY: `word` is a live aligned 32-bit word, `time` lives through the call; FUTEX_WAIT reads both.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen, &raw const time) };
}

/// Wakes all that sleep on `word`, in every process.
pub fn futex_wake_all(word: &AtomicU32) {
    // SAFETY: `word` is a live aligned 32-bit word; FUTEX_WAKE only uses its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Paths that the death-signal handler removes; set once.
static REMOVE_AT_DEATH: OnceLock<Vec<CString>> = OnceLock::new();
/// Process id of the parent whose death is waited for. Relaxed: set before the handler is.
static PARENT: AtomicU32 = AtomicU32::new(0);

/// Anybody may send the signal; the kernel sends it when the parent is another one already.
extern "C" fn parent_may_have_died(_: libc::c_int) {
    if std::os::unix::process::parent_id() != PARENT.load(Ordering::Relaxed) {
        leave_after_leader();
    }
}

/// Does what the death signal's handler does: for a worker that notices by the end of its pipe that nobody leads it any more.
pub fn leave_after_leader() -> ! {
    for path in REMOVE_AT_DEATH.get().into_iter().flatten() {
        // SAFETY: unlink(2) is async-signal-safe and `path` is a NUL-terminated string that is never freed.
        unsafe { libc::unlink(path.as_ptr()) };
    }
    exit_at_once(EXIT_LEADER_DIED)
}

/// Exit code of a worker whose leader died.
pub const EXIT_LEADER_DIED: i32 = 9;

/// Arms the death of the parent: when the thread that forked us ends, the kernel sends SIGCONT, which reaches a process that is stopped or about
/// to be, and its handler removes the name of the segment and exits. Returns false when the parent is gone already (it died before the signal was armed).
///
/// `remove` are the paths of all names that the segment may have, or none when it is to stay.
///
/// # Errors
/// When the signal handler or the death signal cannot be set.
pub fn die_with_parent(parent: u32, remove: &[PathBuf]) -> std::io::Result<bool> {
    let paths = remove.iter().filter_map(|path| CString::new(path.as_os_str().as_bytes()).ok());
    let _ = REMOVE_AT_DEATH.set(paths.collect());
    PARENT.store(parent, Ordering::Relaxed);
    // A stopped worker whose leader died gets SIGHUP from the kernel besides, being an orphaned process group of its own.
    for signal in [Signal::SIGCONT, Signal::SIGHUP] {
        handle(signal, parent_may_have_died)?;
        unblock(signal)?;
    }
    nix::sys::prctl::set_pdeathsig(Signal::SIGCONT)?;
    Ok(std::os::unix::process::parent_id() == parent)
}

/// Exit code of a worker that touched memory which has nothing behind it: its relation's mapping, mostly, of a file that was truncated.
pub const EXIT_BUS_ERROR: i32 = 10;

extern "C" fn bus_error(_: libc::c_int) {
    exit_at_once(EXIT_BUS_ERROR)
}

/// Makes a bus error end this process with [`EXIT_BUS_ERROR`], so that its leader can say what it was reading.
///
/// # Errors
/// None in practice.
pub fn exit_on_bus_error() -> std::io::Result<()> {
    handle(Signal::SIGBUS, bus_error)
}

/// Ignores SIGXFSZ, which would kill a process that writes past RLIMIT_FSIZE: the write fails with EFBIG instead.
///
/// # Errors
/// None in practice.
pub fn ignore_file_size_signal() -> std::io::Result<()> {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { sigaction(Signal::SIGXFSZ, &ignore) }?;
    Ok(())
}

fn unblock(signal: Signal) -> std::io::Result<()> {
    let mut set = SigSet::empty();
    set.add(signal);
    Ok(set.thread_unblock()?)
}

fn handle(signal: Signal, handler: extern "C" fn(libc::c_int)) -> std::io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(handler), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handlers of this module call only async-signal-safe functions.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

/// Gives a signal its default action. SIGCHLD above all: a parent that had us ignore it would have left us without the statuses of our children.
///
/// # Errors
/// None in practice.
pub fn default_action(signal: Signal) -> std::io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(signal, &default) }?;
    Ok(())
}

extern "C" fn exit_as_killed(signal: libc::c_int) {
    // SAFETY: _exit(2) takes an integer, and may be called where a signal interrupted anything.
    unsafe { libc::_exit(128 + signal) }
}

/// Has a signal end this process as a shell tells of it, with exit code 128 + its number. For process 1 of a container, for which the default action of a signal
/// is nothing.
///
/// # Errors
/// None in practice.
pub fn exit_on(signal: Signal) -> std::io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(exit_as_killed), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing but to leave.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

/// Whether this process ignores a signal, as far as /proc tells.
pub fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal as i32 - 1) & 1 == 1
}

/// Standard streams that this process was started without, a bit each.
static MISSING: AtomicU32 = AtomicU32::new(0);

/// Looks before the language's start-up does, which opens /dev/null in the place of what is missing: what is written there would be lost without an error.
#[cfg(all(target_os = "linux", not(miri)))]
#[used]
// SAFETY: the section is a list of functions of this kind, which the C library calls before `main`, when there is one thread.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = {
    extern "C" fn look() {
        for number in 0..3 {
            // SAFETY: the call takes integers, and no descriptor need be open for it.
            let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
            if flags < 0 {
                MISSING.fetch_or(1 << number, Ordering::Relaxed);
            }
        }
    }
    look
};

/// True when this process was started without the standard stream of this number (0 input, 1 output, 2 errors), as by `>&-` in a shell.
pub fn was_closed(stream: u32) -> bool {
    MISSING.load(Ordering::Relaxed) >> stream & 1 == 1
}

/// Takes a file descriptor that this process was started with for its own.
pub fn inherited(number: i32) -> std::fs::File {
    use std::os::fd::FromRawFd;
    // SAFETY: whoever started this process opened it for this process and said its number; it is taken once.
    unsafe { std::fs::File::from_raw_fd(number) }
}

/// Sends this process a signal; for `inject`.
pub(crate) fn send_to_self(signal: libc::c_int) {
    // SAFETY: kill(2) and getpid(2) take and return integers.
    unsafe { libc::kill(std::process::id() as libc::pid_t, signal) };
}

/// Ends this process without destructors and without flushing anything.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: _exit(2) does not return and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Ends this process by `signal` with its default action, so that whoever waits for it sees the truth.
pub fn die_by(signal: Signal) -> ! {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { sigaction(signal, &default) };
    let _ = unblock(signal);
    let _ = nix::sys::signal::raise(signal);
    std::process::exit(128 + signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "needs /proc")]
    fn this_process_is_alive_and_another_start_time_is_not() {
        let me = Identity::current();
        assert!(me.start_time > 0 && me.is_alive());
        assert!(!Identity { start_time: me.start_time + 1, ..me }.is_alive());
        assert_eq!(boot_digest(), boot_digest());
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs fork")]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().expect("true runs");
        let fd = pidfd_open(child.id()).expect("a child has a pidfd");
        let mut poll = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&fd), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut poll, nix::poll::PollTimeout::NONE).expect("poll");
        assert_eq!(start_time(child.id()), None);
        child.wait().expect("reaped");
    }
}
