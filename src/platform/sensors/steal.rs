//! Processor time that other machines on the same host took.

use super::{Root, text};
use std::collections::VecDeque;
use std::path::Path;

/// Looks over which the share is taken: one second of a shared host says nothing.
const LOOKS: usize = 5;

/// Ticks stolen and all ticks, at the last looks.
#[derive(Debug, Default)]
pub(super) struct Steal(VecDeque<[u64; 2]>);

impl Steal {
    /// The share that was stolen since [`LOOKS`] looks ago; `None` before there were as many.
    pub(super) fn look(&mut self, root: &Root) -> Option<f64> {
        let now = ticks(&text(&root.at(Path::new("/proc/stat")))?)?;
        self.0.push_back(now);
        if self.0.len() <= LOOKS {
            return None;
        }
        let before = self.0.pop_front()?;
        // Counts of idle time may go back by a tick.
        let [stolen, all] = [0, 1].map(|at| now[at].checked_sub(before[at]));
        let (stolen, all) = stolen.zip(all.filter(|&all| all > 0))?;
        Some((stolen as f64 / all as f64).min(1.0))
    }
}

/// Of the line for all processors: user, nice, system, idle, iowait, irq, softirq, steal. What guests took is within.
fn ticks(stat: &str) -> Option<[u64; 2]> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let counts: Vec<u64> = line.split_whitespace().take(8).map_while(|count| count.parse().ok()).collect();
    Some([*counts.get(7)?, counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count))?])
}
