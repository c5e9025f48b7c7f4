//! How many of a stream's last frames were missed.

/// Most frames that a window looks back over.
pub const MAX_WINDOW: u8 = 128;

/// The last `frames` frames of one stream, a bit each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    missed: u128,
    /// The bits that count.
    mask: u128,
    /// Misses that are allowed among them.
    allowed: u32,
}

impl Window {
    /// Allows `misses` in any `frames` (1 to [`MAX_WINDOW`]) frames in a row.
    pub(super) fn new((misses, frames): (u8, u8)) -> Self {
        let mask = u128::MAX >> (128 - u32::from(frames.clamp(1, MAX_WINDOW)));
        Self { missed: 0, mask, allowed: u32::from(misses) }
    }

    /// Enters the next frame; whether there are now more misses than allowed.
    pub(super) fn record(&mut self, missed: bool) -> bool {
        self.missed = ((self.missed << 1) | u128::from(missed)) & self.mask;
        missed && self.misses() > self.allowed
    }

    pub(super) fn misses(&self) -> u32 {
        self.missed.count_ones()
    }

    /// Starts anew: what was missed has been acted on.
    pub(super) fn forget(&mut self) {
        self.missed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_frames_count() {
        let mut window = Window::new((1, 3));
        let seen = [true, false, false, true, false, true].map(|missed| window.record(missed));
        assert_eq!(seen, [false, false, false, false, false, true]);
        window.forget();
        assert!(!window.record(true));
    }

    #[test]
    fn the_longest_window_and_none_allowed() {
        assert!(Window::new((0, 1)).record(true));
        let mut window = Window::new((127, MAX_WINDOW));
        assert!((0..127).all(|_| !window.record(true)));
        assert!(window.record(true));
    }
}
