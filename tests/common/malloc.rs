//! Stands in for the C library's malloc and counts, thread by thread. Rust's allocator ends there too.
#![allow(unsafe_code)] // malloc's own interface.

use std::collections::BTreeMap;
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

/// Allocations so far of this process's threads whose name `wanted` accepts, by name and id.
pub fn of_threads(wanted: impl Fn(&str) -> bool) -> BTreeMap<(String, usize), u64> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/task").expect("procfs").flatten() {
        let Ok(name) = std::fs::read_to_string(entry.path().join("comm")) else { continue };
        let name = name.trim().to_owned();
        if wanted(&name) {
            let tid: usize = entry.file_name().to_string_lossy().parse().expect("a thread id");
            let allocations = ALLOCATIONS[tid % ALLOCATIONS.len()].load(Ordering::Relaxed);
            found.insert((name, tid), allocations);
        }
    }
    found
}

/// Whether a thread of this name handles frames.
pub fn handles_frames(name: &str) -> bool {
    name == "exec" || name == "pub" || name.starts_with("cap-")
}
