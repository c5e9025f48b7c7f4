//! One thread of another process, stopped as if it were stuck in the kernel.
#![allow(unsafe_code)] // ptrace's own interface.

use std::process::Child;

/// A thread that does not move until this is dropped. To be dropped on the thread that made it.
pub struct Stopped(libc::pid_t);

/// Ids of the program's threads of that name, oldest first.
pub fn threads(child: &Child, name: &str) -> Vec<libc::pid_t> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("a process");
    let mut found: Vec<libc::pid_t> = tasks
        .flatten()
        .filter(|task| {
            // One that ends at this moment has no name.
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        })
        .map(|task| task.file_name().to_string_lossy().parse().expect("a thread's id"))
        .collect();
    found.sort_unstable();
    found
}

impl Stopped {
    /// Stops the program's newest thread of that name.
    pub fn new(child: &Child, name: &str) -> Self {
        let found = threads(child, name);
        let thread = *found.last().unwrap_or_else(|| panic!("no thread {name}"));
        ptrace(libc::PTRACE_SEIZE, thread).expect("a thread of our own child may be traced");
        ptrace(libc::PTRACE_INTERRUPT, thread).expect("a traced thread can be stopped");
        // SAFETY: a wait for the thread that was just stopped, which wants no status.
        let waited = unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) };
        assert_eq!(waited, thread, "it has stopped");
        Self(thread)
    }

    /// Lets go of a thread whose process has ended itself: until then the process is not gone.
    pub fn is_gone(&self) -> bool {
        // SAFETY: a wait that does not block, for a thread that is traced here.
        let waited = unsafe { libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL | libc::WNOHANG) };
        waited != 0
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // A process that is gone needs no more.
        let _ = ptrace(libc::PTRACE_DETACH, self.0);
    }
}

fn ptrace(request: libc::c_uint, thread: libc::pid_t) -> std::io::Result<()> {
    // SAFETY: none of these requests reads or writes memory here.
    match unsafe { libc::ptrace(request, thread, 0, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
