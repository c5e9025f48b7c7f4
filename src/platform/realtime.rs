//! What a thread may ask of the scheduler: a place before others, and CPUs of its own.

use crate::board::{Asked, Realtime};
use rustix::thread::{CpuSet, sched_setaffinity};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// A thread's place under SCHED_FIFO, where the board asks for it. Higher runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Decides what runs next.
    Exec,
    /// Fills slots.
    Capture,
    /// Decodes and hands out results.
    Publish,
}

impl Role {
    fn priority(self) -> u8 {
        match self {
            Self::Exec => 70,
            Self::Capture => 60,
            Self::Publish => 50,
        }
    }
}

/// Gives the calling thread what the board asks for.
///
/// # Errors
/// What the system refused, and the remedy, in one line.
pub fn enter(role: Role, asked: &Realtime) -> Result<(), String> {
    if asked.fifo != Asked::No {
        let priority = ThreadPriority::try_from(role.priority()).map_err(str::to_owned)?;
        let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
        set_thread_priority_and_policy(thread_native_id(), priority, policy).map_err(|error| {
            format!(
                "real-time scheduling (SCHED_FIFO {}) refused: {error:?}; run as root, give CAP_SYS_NICE or \
                 set LimitRTPRIO=, or say realtime.fifo = \"no\"",
                role.priority()
            )
        })?;
    }
    if !asked.cpus.is_empty() {
        let mut set = CpuSet::new();
        for &cpu in &asked.cpus {
            if usize::from(cpu) >= CpuSet::MAX_CPU {
                return Err(format!("realtime.cpus: there is no CPU {cpu}"));
            }
            set.set(cpu.into());
        }
        sched_setaffinity(None, &set).map_err(|error| {
            format!("realtime.cpus = {:?} refused: {error}; name CPUs that exist", asked.cpus)
        })?;
    }
    Ok(())
}

/// Asks once, on a thread of its own, whether the system allows what the board asks for.
///
/// # Errors
/// As [`enter`].
pub fn probe(asked: &Realtime) -> Result<(), String> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| enter(Role::Exec, asked))
            .join()
            .unwrap_or_else(|_| Err("the probe thread died".to_owned()))
    })
}
