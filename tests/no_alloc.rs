//! No heap allocation after start on the threads that handle frames: capture, exec and pub, with the simulated
//! backend. Rust's allocator ends in malloc, so both are watched by watching malloc itself, thread by thread.

#![allow(unsafe_code)] // Stands in for the C library's malloc, to count.

mod common;

use common::running;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

/// Allocations by thread, indexed by the thread's id modulo the table's size.
static ALLOCATIONS: [AtomicU64; 1 << 16] = [const { AtomicU64::new(0) }; 1 << 16];

fn count() {
    let tid = rustix::thread::gettid().as_raw_nonzero().get() as usize;
    ALLOCATIONS[tid % ALLOCATIONS.len()].fetch_add(1, Ordering::Relaxed);
}

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(old: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
}

/// Counts, then does what the C library's does.
///
/// # Safety
/// As malloc(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    count();
    // SAFETY: glibc's own entry point, with the caller's arguments.
    unsafe { __libc_malloc(size) }
}

/// Counts, then does what the C library's does.
///
/// # Safety
/// As calloc(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(items: usize, size: usize) -> *mut c_void {
    count();
    // SAFETY: glibc's own entry point, with the caller's arguments.
    unsafe { __libc_calloc(items, size) }
}

/// Counts, then does what the C library's does.
///
/// # Safety
/// As realloc(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
    count();
    // SAFETY: glibc's own entry point, with the caller's arguments.
    unsafe { __libc_realloc(old, size) }
}

/// Counts, then does what the C library's does.
///
/// # Safety
/// As posix_memalign(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> i32 {
    count();
    // SAFETY: glibc's own entry point; the caller's `out` is valid for a write.
    unsafe {
        let memory = __libc_memalign(align, size);
        if memory.is_null() {
            return 12; // ENOMEM
        }
        *out = memory;
    }
    0
}

/// Allocations so far of every thread of this process that handles frames, by name and id.
fn frame_threads() -> HashMap<(String, usize), u64> {
    let mut found = HashMap::new();
    for entry in std::fs::read_dir("/proc/self/task").expect("procfs").flatten() {
        let Ok(name) = std::fs::read_to_string(entry.path().join("comm")) else { continue };
        let name = name.trim().to_owned();
        if name == "exec" || name == "pub" || name.starts_with("cap-") {
            let tid: usize = entry.file_name().to_string_lossy().parse().expect("a thread id");
            let allocations = ALLOCATIONS[tid % ALLOCATIONS.len()].load(Ordering::Relaxed);
            found.insert((name, tid), allocations);
        }
    }
    found
}

#[test]
fn frames_cost_no_allocation() {
    let mut run = running::start(&running::synthetic(4));
    // Everything that happens once has happened when every stream has had a second of frames.
    run.wait_for_frames(30);
    let before = frame_threads();
    assert_eq!(before.len(), 4 + 2, "capture, exec and pub threads: {before:?}");
    assert!(before.values().all(|&count| count > 0), "the counter sees every thread's start: {before:?}");
    run.wait_for_frames(90);
    let after = frame_threads();
    let finished = run.stop();
    assert_eq!(after, before);
    assert!(finished.total().balances());
    assert!(finished.total().met > 4 * 60, "frames were served meanwhile: {:?}", finished.total());
}
