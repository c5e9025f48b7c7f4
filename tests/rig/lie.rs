//! A driver that lies: what the kernel hands to a camera's thread is changed before the thread sees it.
//!
//! The thread is traced, and stops whenever it has taken a buffer (VIDIOC_DQBUF).

use crate::agent::now;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// What is told in place of the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lie {
    /// Every second frame has the number of the one before.
    RepeatedNumber,
    /// Every second frame is stamped an hour before its time.
    PastStamp,
    /// Every second frame is stamped 50 ms before its time: before the one before it.
    EarlierStamp,
}

/// Lies to a thread until then. The caller is its tracer, so it has to be a thread of its own.
pub fn tell(thread: Pid, lie: Lie, until_ns: u64) -> Result<(), nix::Error> {
    ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD)?;
    ptrace::interrupt(thread)?;
    let mut status = waitpid(thread, Some(WaitPidFlag::__WALL))?;
    while now() < until_ns {
        let signal = match status {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Ok(()),
            WaitStatus::PtraceSyscall(_) => {
                change(thread, lie)?;
                None
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            _ => None,
        };
        ptrace::syscall(thread, signal)?;
        status = waitpid(thread, Some(WaitPidFlag::__WALL))?;
    }
    ptrace::detach(thread, None)
}

/// Changes the buffer that the thread has just taken, if it has.
#[cfg(target_arch = "x86_64")]
fn change(thread: Pid, lie: Lie) -> Result<(), nix::Error> {
    /// `ioctl`
    const IOCTL: u64 = 16;
    /// `VIDIOC_DQBUF`
    const TAKEN: u64 = 0xc058_5611;
    /// Of `timestamp.tv_sec`, `timestamp.tv_usec` and of `sequence` with `memory`, in `struct v4l2_buffer`.
    const SECONDS: u64 = 24;
    const MICROS: u64 = 32;
    const NUMBER: u64 = 56;
    let registers = ptrace::getregs(thread)?;
    if (registers.orig_rax, registers.rsi, registers.rax) != (IOCTL, TAKEN, 0) {
        return Ok(());
    }
    let at = |offset: u64| (registers.rdx + offset) as ptrace::AddressType;
    let word = ptrace::read(thread, at(NUMBER))?;
    if word & 1 == 0 {
        return Ok(());
    }
    match lie {
        Lie::RepeatedNumber => ptrace::write(thread, at(NUMBER), word - 1),
        Lie::PastStamp => {
            let seconds = ptrace::read(thread, at(SECONDS))?;
            ptrace::write(thread, at(SECONDS), seconds - 3600)
        }
        Lie::EarlierStamp => {
            let (seconds, micros) = (ptrace::read(thread, at(SECONDS))?, ptrace::read(thread, at(MICROS))?);
            let time = seconds * 1_000_000 + micros - 50_000;
            ptrace::write(thread, at(SECONDS), time / 1_000_000)?;
            ptrace::write(thread, at(MICROS), time % 1_000_000)
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn change(_: Pid, _: Lie) -> Result<(), nix::Error> {
    Err(nix::Error::ENOSYS) // Machines are x86-64.
}
