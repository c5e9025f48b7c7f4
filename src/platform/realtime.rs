//! What a thread may ask of the scheduler: a place before others, and CPUs of its own.

use crate::board::{Asked, Realtime};
use rustix::thread::{
    CpuSet, current_timer_slack, sched_getaffinity, sched_setaffinity, set_current_timer_slack,
};
use std::num::NonZeroU64;
use thread_priority::{
    NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityOsValue,
    ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

/// A thread's place under SCHED_FIFO, where the board asks for it. Higher runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Watches over all others, on any CPU.
    Supervise,
    /// Decides what runs next.
    Exec,
    /// Fills slots.
    Capture,
    /// Decodes and hands out results.
    Publish,
}

/// Timers of a thread with a place are not put off, in nanoseconds: the least there is.
const SLACK: NonZeroU64 = NonZeroU64::MIN;

impl Role {
    fn priority(self) -> u8 {
        match self {
            Self::Supervise => 80,
            Self::Exec => 70,
            Self::Capture => 60,
            Self::Publish => 50,
        }
    }
}

/// The calling thread runs as its role asks until this is dropped; then it is an ordinary thread again.
///
/// Threads that it starts meanwhile inherit its place: a decoder's would compute before everybody else. So
/// nothing that starts threads is called while one of these lives.
#[must_use]
#[derive(Debug)]
pub struct Place {
    fifo: bool,
    /// CPUs before; `None` when they were not changed.
    cpus: Option<CpuSet>,
    /// Timer slack before, in nanoseconds; `None` when it was not changed.
    slack: Option<NonZeroU64>,
    /// What was refused; the rest holds all the same.
    pub refused: Refused,
}

/// What the system refused, each with its remedy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Real-time scheduling.
    pub fifo: Option<String>,
    /// Timers to the nanosecond, without which ordinary threads wake up 50 us late.
    pub timer_slack: Option<String>,
}

/// Gives the calling thread what the board asks for.
///
/// # Errors
/// What of the CPUs the system refused, and the remedy, in one line.
pub fn enter(role: Role, asked: &Realtime) -> Result<Place, String> {
    let mut place = Place { fifo: false, cpus: None, slack: None, refused: Refused::default() };
    if role != Role::Supervise && !asked.cpus.is_empty() {
        let refused = |error: &dyn std::fmt::Display| {
            format!("realtime.cpus = {:?} refused: {error}; name CPUs that exist", asked.cpus)
        };
        let mut wanted = CpuSet::new();
        for &cpu in &asked.cpus {
            if usize::from(cpu) >= CpuSet::MAX_CPU {
                return Err(refused(&format!("there is no CPU {cpu}")));
            }
            wanted.set(cpu.into());
        }
        let before = sched_getaffinity(None).map_err(|error| refused(&error))?;
        sched_setaffinity(None, &wanted).map_err(|error| refused(&error))?;
        place.cpus = Some(before);
    }
    if asked.fifo != Asked::No {
        let priority = ThreadPriority::try_from(role.priority()).map_err(str::to_owned)?;
        let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
        let granted = set_thread_priority_and_policy(thread_native_id(), priority, policy);
        place.fifo = granted.is_ok();
        place.refused.fifo = granted.err().map(|error| {
            format!(
                "real-time scheduling (SCHED_FIFO {}) refused: {error:?}; run as root, give CAP_SYS_NICE or \
                 set LimitRTPRIO=, or say realtime.fifo = \"no\"",
                role.priority()
            )
        });
    }
    // Under SCHED_FIFO there is none; where that was refused, it is all that can be had.
    let slack =
        current_timer_slack().and_then(|before| set_current_timer_slack(Some(SLACK)).map(|()| before));
    match slack {
        Ok(before) => place.slack = NonZeroU64::new(before),
        Err(error) => {
            place.refused.timer_slack = Some(format!(
                "timer slack refused: {error}: threads may wake up 50 us late; let prctl(PR_SET_TIMERSLACK) through \
                 the sandbox"
            ));
        }
    }
    Ok(place)
}

impl Drop for Place {
    fn drop(&mut self) {
        // Neither can be refused: both give up what was granted.
        if self.fifo {
            ordinary();
        }
        if let Some(cpus) = &self.cpus {
            let _ = sched_setaffinity(None, cpus);
        }
        if let Some(slack) = self.slack {
            let _ = set_current_timer_slack(Some(slack));
        }
    }
}

/// Makes the calling thread an ordinary one, whatever it inherited from the thread that started it.
pub fn ordinary() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
    let usual = ThreadPriority::Os(ThreadPriorityOsValue::default()); // Niceness 0.
    // Never refused: it gives up what was granted.
    let _ = set_thread_priority_and_policy(thread_native_id(), usual, policy);
}

/// Asks once, on a thread of its own, whether the system allows what the board asks for: what it refuses.
///
/// # Errors
/// As [`enter`].
pub fn probe(asked: &Realtime) -> Result<Refused, String> {
    let ask = || enter(Role::Exec, asked).map(|mut place| std::mem::take(&mut place.refused));
    std::thread::scope(|scope| {
        scope.spawn(ask).join().unwrap_or_else(|_| Err("the probe thread died".to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use thread_priority::thread_schedule_policy;

    fn allowed() -> CpuSet {
        sched_getaffinity(None).expect("this thread has CPUs")
    }

    #[test]
    fn a_place_is_given_back() {
        let first = (0..CpuSet::MAX_CPU).find(|&cpu| allowed().is_set(cpu)).expect("a CPU");
        let asked = Realtime { fifo: Asked::No, cpus: vec![first as u16], ..Realtime::default() };
        let (policy, cpus) = (thread_schedule_policy().expect("a policy"), allowed());
        let slack = current_timer_slack().expect("a timer slack");
        let place = enter(Role::Capture, &asked).expect("a CPU of our own");
        assert_eq!((allowed().count(), &place.refused), (1, &Refused::default()));
        assert_eq!(current_timer_slack(), Ok(1));
        drop(place);
        assert_eq!((allowed(), current_timer_slack()), (cpus, Ok(slack)));
        // Whether FIFO is allowed is the machine's choice; after it the thread is what it was.
        let fifo = Realtime { fifo: Asked::Required, ..Realtime::default() };
        let place = enter(Role::Capture, &fifo).expect("no CPUs asked for");
        if place.refused.fifo.is_none() {
            let within = thread_schedule_policy().expect("a policy");
            assert_eq!(within, ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo));
        }
        drop(place);
        assert_eq!(thread_schedule_policy().expect("a policy"), policy);
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_refused_by_name() {
        let asked = Realtime { fifo: Asked::No, cpus: vec![1023], ..Realtime::default() };
        let refused = probe(&asked).expect_err("no machine has 1024 CPUs");
        assert!(refused.contains("1023"), "{refused}");
    }
}
