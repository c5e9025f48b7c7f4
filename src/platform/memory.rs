//! Pages, and how much of them a process may lock.

use rustix::process::{Resource, getrlimit};

/// Bytes in a page.
#[must_use]
pub fn page_size() -> usize {
    rustix::param::page_size()
}

/// Bytes that this process may lock (`RLIMIT_MEMLOCK`), `None` without limit. A process with `CAP_IPC_LOCK`
/// may lock more.
#[must_use]
pub fn lock_limit() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}
