use super::*;
use crate::image::PixelFormat;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

fn share(slots: usize, slot_bytes: usize) -> Share {
    Pool::new(&[ShareSpec { slots, slot_bytes }], false).unwrap().share(StreamId(0))
}

fn gray(width: u32, height: u32) -> ImageLayout {
    ImageLayout::packed(PixelFormat::Gray8, width, height)
}

/// Counts its drops.
fn keeper(drops: &Arc<AtomicUsize>) -> Keeper {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    Keeper(Box::new(Counted(drops.clone())))
}

#[test]
fn every_slot_is_handed_out_once_and_comes_back() {
    // 130 slots: two full words and a partial one.
    let share = share(130, 16);
    assert_eq!((share.slots(), share.free_slots(), share.slot_bytes()), (130, 130, 16));
    let mut taken: Vec<FrameMut> = (0..130).map(|_| share.take().unwrap()).collect();
    assert!(share.take().is_none());
    for (index, frame) in taken.iter_mut().enumerate() {
        frame.bytes_mut().fill(index as u8);
    }
    for (index, frame) in taken.iter_mut().enumerate() {
        assert!(frame.bytes_mut().iter().all(|&byte| byte == index as u8), "slots overlap");
    }
    drop(taken);
    assert_eq!(share.free_slots(), 130);
}

#[test]
fn shares_are_apart_and_page_aligned() {
    let specs = [ShareSpec { slots: 2, slot_bytes: 5000 }, ShareSpec { slots: 1, slot_bytes: 1 }];
    let pool = Pool::new(&specs, false).unwrap();
    let (a, b) = (pool.share(StreamId(0)), pool.share(StreamId(1)));
    let mut frames = [a.take().unwrap(), a.take().unwrap(), b.take().unwrap()];
    assert!(a.take().is_none() && b.take().is_none());
    let mut ranges: Vec<_> = frames.iter_mut().map(|frame| frame.bytes_mut().as_ptr_range()).collect();
    ranges.sort_by_key(|range| range.start);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert!(ranges.iter().all(|range| range.start.addr().is_multiple_of(page_size())));
    assert_eq!(pool.bytes(), 2 * 5000usize.next_multiple_of(page_size()) + page_size());
}

#[test]
fn the_last_reference_frees_the_slot_even_after_the_pool() {
    let share = share(1, 64);
    let mut frame = share.take().unwrap();
    frame.bytes_mut()[63] = 7;
    let first = frame.freeze(gray(8, 8)).unwrap();
    let second = first.clone();
    drop(first);
    assert!(share.take().is_none());
    assert_eq!((second.bytes()[63], *second.layout()), (7, gray(8, 8)));
    assert_eq!(share.free_slots(), 0);
    drop(share);
    // The pool and all shares are gone; the frame still holds the slab.
    assert_eq!(second.bytes()[63], 7);
}

#[test]
fn a_layout_that_does_not_fit_hands_the_slot_back() {
    let share = share(1, 64);
    let frame = share.take().unwrap().freeze(gray(65, 1)).unwrap_err();
    assert_eq!(share.free_slots(), 0);
    let frame = frame.freeze(ImageLayout { width: 0, ..gray(8, 8) }).unwrap_err();
    drop(frame);
    assert_eq!(share.free_slots(), 1);
}

#[test]
fn an_adopted_frame_keeps_its_owner_and_returns_to_the_lease() {
    let share = share(2, 64);
    let drops = Arc::new(AtomicUsize::new(0));
    let lease = share.take().unwrap().into_lease();
    // SAFETY: no frame is on the slot yet.
    unsafe { lease.as_ptr().add(16).write(42) };
    // SAFETY: within the slot.
    let addr = unsafe { lease.as_ptr().add(16) };
    let frame = share.adopt(addr, gray(8, 6), keeper(&drops)).unwrap();
    assert_eq!((frame.bytes().len(), frame.bytes()[0]), (48, 42));
    let clone = frame.clone();
    drop(frame);
    assert_eq!(drops.load(Ordering::SeqCst), 0);
    drop(clone);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    // Still leased: it can be delivered again, and is free only when the lease ends.
    assert_eq!(share.free_slots(), 1);
    drop(share.adopt(addr, gray(8, 6), keeper(&drops)).unwrap());
    drop(lease);
    assert_eq!((share.free_slots(), drops.load(Ordering::SeqCst)), (2, 2));
}

#[test]
fn the_same_buffer_twice_is_one_frame() {
    let share = share(1, 64);
    let drops = Arc::new(AtomicUsize::new(0));
    let lease = share.take().unwrap().into_lease();
    let first = share.adopt(lease.as_ptr(), gray(8, 8), keeper(&drops)).unwrap();
    let second = share.adopt(lease.as_ptr(), gray(8, 8), keeper(&drops)).unwrap();
    assert_eq!((first.bytes().as_ptr(), drops.load(Ordering::SeqCst)), (second.bytes().as_ptr(), 1));
    // The same buffer as something else is refused, and leaves the frame as it is.
    let spare = share.adopt(lease.as_ptr(), gray(4, 4), keeper(&drops)).unwrap_err();
    assert_eq!((drops.load(Ordering::SeqCst), *second.layout()), (1, gray(8, 8)));
    drop((spare, first));
    assert_eq!(drops.load(Ordering::SeqCst), 2);
    drop(second);
    assert_eq!((drops.load(Ordering::SeqCst), share.free_slots()), (3, 0));
}

#[test]
fn a_keeper_may_own_the_lease() {
    let share = share(1, 64);
    let lease = share.take().unwrap().into_lease();
    let addr = lease.as_ptr();
    let frame = share.adopt(addr, gray(8, 8), Keeper(Box::new(lease))).unwrap();
    assert_eq!(share.free_slots(), 0);
    drop(frame);
    assert_eq!(share.free_slots(), 1);
}

#[test]
fn a_lease_may_end_before_its_frame() {
    let share = share(1, 64);
    let drops = Arc::new(AtomicUsize::new(0));
    let lease = share.take().unwrap().into_lease();
    let addr = lease.as_ptr();
    let frame = share.adopt(addr, gray(8, 8), keeper(&drops)).unwrap();
    drop(lease);
    assert!(share.take().is_none());
    assert!(share.adopt(addr, gray(8, 8), keeper(&drops)).is_err());
    drop(frame);
    assert_eq!((share.free_slots(), drops.load(Ordering::SeqCst)), (1, 2));
}

#[test]
fn foreign_addresses_are_refused() {
    let specs = [ShareSpec { slots: 2, slot_bytes: 64 }, ShareSpec { slots: 1, slot_bytes: 64 }];
    let pool = Pool::new(&specs, false).unwrap();
    let (share, other) = (pool.share(StreamId(0)), pool.share(StreamId(1)));
    let drops = Arc::new(AtomicUsize::new(0));
    let lease = share.take().unwrap().into_lease();
    let mut filling = share.take().unwrap();
    let start = lease.as_ptr();
    let refused = [
        std::ptr::null(),
        [0u8; 8].as_ptr(),
        start.wrapping_sub(1).cast_const(),
        start.wrapping_add(1),  // 64 bytes don't fit from there
        start.wrapping_add(64), // past the slot, before the next one
        filling.bytes_mut().as_ptr(),
    ];
    for addr in refused {
        assert!(share.adopt(addr, gray(8, 8), keeper(&drops)).is_err(), "{addr:p}");
    }
    assert!(other.adopt(start, gray(8, 8), keeper(&drops)).is_err());
    assert!(share.adopt(start, ImageLayout { width: 0, ..gray(8, 8) }, keeper(&drops)).is_err());
    assert_eq!(drops.load(Ordering::SeqCst), refused.len() + 2);
    assert!(share.adopt(start, gray(8, 8), keeper(&drops)).is_ok());
}

#[test]
fn slots_go_round_between_threads() {
    let share = share(3, 64);
    let mut threads = Vec::new();
    for id in 0..4u8 {
        let share = share.clone();
        threads.push(std::thread::spawn(move || {
            let mut got = 0u32;
            while got < 2000 {
                let Some(mut frame) = share.take() else {
                    std::thread::yield_now();
                    continue;
                };
                frame.bytes_mut().fill(id);
                let frame = frame.freeze(gray(8, 8)).unwrap();
                assert!(frame.clone().bytes().iter().all(|&byte| byte == id));
                got += 1;
            }
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(share.free_slots(), 3);
}

#[test]
fn impossible_sizes_are_refused() {
    let refuse = |slots, slot_bytes| Pool::new(&[ShareSpec { slots, slot_bytes }], false).unwrap_err();
    assert!(matches!(refuse(1, usize::MAX), PoolError::TooLarge));
    assert!(matches!(refuse(usize::MAX / 4096, 8192), PoolError::TooLarge));
    assert!(matches!(refuse(1, 1 << 46), PoolError::Map { .. }));
    assert!(share(0, 64).take().is_none());
    assert!(share(1, 0).take().unwrap().freeze(gray(1, 1)).is_err());
}

/// Locks, or says which limit refused and how to raise it.
#[test]
fn locking_is_done_or_refused_aloud() {
    let locked = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    };
    match Pool::new(&[ShareSpec { slots: 4, slot_bytes: 1 << 20 }], true) {
        Ok(pool) => assert!(locked() >= pool.bytes()),
        Err(refused) => {
            let text = refused.to_string();
            assert!(text.contains("RLIMIT_MEMLOCK") && text.contains("lock_memory"), "{text}");
        }
    }
    let refused =
        PoolError::Lock { bytes: 3 << 19, limit: Some(65536), why: rustix::io::Errno::NOMEM.into() };
    let text = refused.to_string();
    assert!(text.contains("1.5 MiB") && text.contains("64 KiB"), "{text}");
}

#[test]
fn a_lease_delivers_frames_one_after_the_other() {
    let share = share(1, 64);
    let lease = share.take().unwrap().into_lease();
    assert!(lease.is_idle());
    // SAFETY: no frame is on the slot yet.
    unsafe { lease.as_ptr().write(42) };
    let frame = lease.deliver(gray(8, 8)).unwrap();
    let clone = frame.clone();
    assert_eq!((frame.bytes()[0], lease.is_idle()), (42, false));
    // A frame is on it: not even the same one again, whose reader would not know of what is written next.
    assert!(lease.deliver(gray(8, 8)).is_none());
    drop(frame);
    assert!(!lease.is_idle());
    drop(clone);
    assert!(lease.is_idle());
    assert!(
        lease.deliver(gray(8, 9)).is_none()
            && lease.deliver(ImageLayout { width: 0, ..gray(8, 8) }).is_none()
    );
    let last = lease.deliver(gray(4, 4)).unwrap();
    drop(lease);
    assert_eq!((share.free_slots(), *last.layout()), (0, gray(4, 4)));
    drop(last);
    assert_eq!(share.free_slots(), 1);
}

/// A file of whole pages, each full of its number.
fn pages(count: usize) -> std::fs::File {
    let file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..count).flat_map(|page| vec![page as u8; page_size()]).collect();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    file
}

#[test]
fn foreign_buffers_are_slots_where_they_lie() {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;
    let file = pages(5);
    let page = page_size();
    let part = |number: usize, bytes| Part { file: file.as_fd(), offset: (number * page) as u64, bytes };
    // Two parts each, of which the first is shorter than its page.
    let one = Mapping::new(&[part(3, 100), part(0, page)]).unwrap();
    let two = Mapping::new(&[part(1, 100), part(2, page), part(4, page)]).unwrap();
    assert_eq!((one.bytes(), two.bytes()), (2 * page, 3 * page));
    assert_eq!(Mapping::offsets([100, page].into_iter()).collect::<Vec<_>>(), [0, page, 2 * page]);
    let share = Share::of(vec![one, two]);
    assert_eq!((share.slots(), share.free_slots(), share.slot_bytes()), (2, 2, 2 * page));

    let lease = share.take().unwrap().into_lease();
    let whole = gray(page as u32, 2);
    let frame = lease.deliver(whole).unwrap();
    assert_eq!((frame.bytes()[0], frame.bytes()[page]), (3, 0));
    drop(frame);
    // What the owner of the memory writes is what the next frame holds.
    file.write_all_at(&[99], page as u64).unwrap();
    let other = share.take().unwrap().into_lease();
    let frame = other.deliver(whole).unwrap();
    assert_eq!((frame.bytes()[0], frame.bytes()[page], share.take().is_none()), (99, 2, true));
    // Found by their address as slots of the slab are, but not beyond what all of them have.
    drop(frame);
    let drops = Arc::new(AtomicUsize::new(0));
    let addr = other.as_ptr();
    assert!(share.adopt(addr.wrapping_add(page), gray(8, 8), keeper(&drops)).is_ok());
    assert!(share.adopt(addr.wrapping_add(2 * page), gray(8, 8), keeper(&drops)).is_err());
    // The frame outlives everything else.
    let frame = lease.deliver(whole).unwrap();
    drop((share, lease, other, file));
    assert_eq!(frame.bytes()[0], 3);
}

#[test]
fn what_can_not_be_mapped_is_refused() {
    use std::os::fd::AsFd;
    let null = std::fs::File::open("/dev/null").unwrap();
    let part = |bytes| Part { file: null.as_fd(), offset: 0, bytes };
    assert!(Mapping::new(&[]).is_err());
    assert!(Mapping::new(&[part(0)]).is_err());
    assert!(Mapping::new(&[part(4096)]).is_err());
    assert!(Mapping::new(&[part(usize::MAX), part(4096)]).is_err());
    assert!(Share::of(Vec::new()).take().is_none());
}

/// Sees memory a million bytes further on, up to a limit of bytes at once, and keeps what it sees at the moment.
#[derive(Debug, Default)]
struct Spectator {
    limit: usize,
    sees: Mutex<Vec<usize>>,
}

impl Reader for Spectator {
    fn admit(&self, start: NonNull<u8>, bytes: usize) -> Result<u64, String> {
        if bytes > self.limit {
            return Err(format!("{bytes} bytes are too many"));
        }
        self.sees.lock().unwrap().push(start.addr().get());
        Ok(start.addr().get() as u64 + 1_000_000)
    }

    fn dismiss(&self, start: NonNull<u8>) {
        // Still mapped: this reads it.
        // SAFETY: memory is dismissed before it goes.
        let _ = unsafe { start.as_ptr().read_volatile() };
        self.sees.lock().unwrap().retain(|seen| *seen != start.addr().get());
    }
}

#[test]
fn a_reader_sees_the_slab_and_foreign_buffers_until_they_go() {
    use std::os::fd::AsFd;
    let page = page_size();
    let spectator = Arc::new(Spectator { limit: 4 * page, ..Spectator::default() });
    let seen = || spectator.sees.lock().unwrap().len();
    let specs = [ShareSpec { slots: 2, slot_bytes: 100 }, ShareSpec { slots: 2, slot_bytes: 50 }];
    let pool = Pool::read_by(Some(spectator.clone()), &specs, false).unwrap();
    let addresses =
        |frame: &FrameRef| (frame.bytes().as_ptr().addr() as u64 + 1_000_000, frame.device_address());
    let share = pool.share(StreamId(1));
    let frames = [0, 1].map(|_| share.take().unwrap().freeze(gray(5, 5)).unwrap());
    for (expected, found) in frames.iter().map(addresses) {
        assert_eq!(found, Some(expected));
    }
    // Where a frame begins within its slot counts.
    let lease = pool.share(StreamId(0)).take().unwrap().into_lease();
    let drops = Arc::new(AtomicUsize::new(0));
    let within = pool.share(StreamId(0)).adopt(lease.as_ptr().wrapping_add(40), gray(6, 6), keeper(&drops));
    let (expected, found) = addresses(&within.unwrap());
    assert_eq!(found, Some(expected));

    let file = pages(7);
    let part = |number: usize, pages| Part {
        file: file.as_fd(),
        offset: (number * page) as u64,
        bytes: pages * page,
    };
    let buffers = |pages: [usize; 2]| {
        vec![Mapping::new(&[part(0, pages[0])]).unwrap(), Mapping::new(&[part(2, pages[1])]).unwrap()]
    };
    let foreign = share.beside(buffers([1, 2])).unwrap();
    let both = [0, 1].map(|_| foreign.take().unwrap().freeze(gray(5, 5)).unwrap());
    for (expected, found) in both.iter().map(addresses) {
        assert_eq!(found, Some(expected));
    }
    assert_eq!(seen(), 3);
    drop((both, foreign));
    assert_eq!(seen(), 1);
    let refused = share.beside(buffers([1, 5])).unwrap_err();
    assert!(refused.contains("too many") && seen() == 1, "one is beyond what it can see: {refused}");
    drop((pool, share, lease));
    assert_eq!(seen(), 1, "frames keep the slab");
    drop(frames);
    assert_eq!(seen(), 0);
}

#[test]
fn a_reader_that_sees_no_slab_refuses_no_foreign_buffers() {
    use std::os::fd::AsFd;
    let blind = Arc::new(Spectator::default());
    let pool = Pool::read_by(Some(blind), &[ShareSpec { slots: 1, slot_bytes: 100 }], false).unwrap();
    assert!(pool.unseen().is_some_and(|why| why.contains("too many")));
    let file = pages(1);
    let part = Part { file: file.as_fd(), offset: 0, bytes: page_size() };
    let foreign = pool.share(StreamId(0)).beside(vec![Mapping::new(&[part]).unwrap()]).unwrap();
    let frame = foreign.take().unwrap().freeze(gray(5, 5)).unwrap();
    assert_eq!(frame.device_address(), None);
}
