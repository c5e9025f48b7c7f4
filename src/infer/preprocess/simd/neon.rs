//! aarch64, whose base instruction set has NEON.
#![allow(unsafe_code, reason = "intrinsics of a detected instruction set")]

use super::super::grid::BLOCK;
use super::super::kernel::{self, Work};
use super::Simd;
use std::arch::aarch64::*;

/// The processor has NEON.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Neon(());

impl Neon {
    /// Proof of the instructions, where they exist.
    pub(in super::super) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    /// The kernel, compiled for these instructions.
    pub(in super::super) fn render(self, work: Work<'_>) {
        #[target_feature(enable = "neon")]
        fn compiled(simd: Neon, work: Work<'_>) {
            kernel::render(simd, work);
        }
        // SAFETY: a value of this type exists only where `detect` found the feature.
        unsafe { compiled(self, work) }
    }
}

/// Intrinsics that only compute, or that read or write through the reference given to them.
macro_rules! neon {
    ($e:expr) => {
        // SAFETY: the caller's `self` exists only where `detect` found NEON. Pointers come from references to
        // arrays of exactly the bytes that are read or written, and the instructions accept any alignment.
        unsafe { $e }
    };
}

/// The same operation on both halves.
macro_rules! halves {
    ($op:ident, $($lanes:expr),+) => {
        neon!(int16x8x2_t($op($($lanes.0),+), $op($($lanes.1),+)))
    };
}

impl Simd for Neon {
    type Lanes = int16x8x2_t;

    #[inline(always)]
    fn splat(self, value: i16) -> int16x8x2_t {
        neon!(int16x8x2_t(vdupq_n_s16(value), vdupq_n_s16(value)))
    }

    #[inline(always)]
    fn load(self, from: &[i16; BLOCK]) -> int16x8x2_t {
        neon!(vld1q_s16_x2(from.as_ptr()))
    }

    #[inline(always)]
    fn store(self, lanes: int16x8x2_t, to: &mut [i16; BLOCK]) {
        neon!(vst1q_s16_x2(to.as_mut_ptr(), lanes));
    }

    #[inline(always)]
    fn add(self, a: int16x8x2_t, b: int16x8x2_t) -> int16x8x2_t {
        halves!(vaddq_s16, a, b)
    }

    #[inline(always)]
    fn sub(self, a: int16x8x2_t, b: int16x8x2_t) -> int16x8x2_t {
        halves!(vsubq_s16, a, b)
    }

    #[inline(always)]
    fn saturating_add(self, a: int16x8x2_t, b: int16x8x2_t) -> int16x8x2_t {
        halves!(vqaddq_s16, a, b)
    }

    #[inline(always)]
    fn clamp(self, a: int16x8x2_t, low: int16x8x2_t, high: int16x8x2_t) -> int16x8x2_t {
        let raised = halves!(vmaxq_s16, a, low);
        halves!(vminq_s16, raised, high)
    }

    #[inline(always)]
    fn scale(self, a: int16x8x2_t, w: int16x8x2_t) -> int16x8x2_t {
        // (2 a w + 2^15) >> 16, saturated where both are -32768.
        halves!(vqrdmulhq_s16, a, w)
    }

    #[inline(always)]
    fn or(self, a: int16x8x2_t, b: int16x8x2_t) -> int16x8x2_t {
        halves!(vorrq_s16, a, b)
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self, a: int16x8x2_t) -> int16x8x2_t {
        neon!(int16x8x2_t(vshlq_n_s16::<BITS>(a.0), vshlq_n_s16::<BITS>(a.1)))
    }

    #[inline(always)]
    fn shuffle(self, windows: [&[u8; 16]; 2], masks: &[[u8; 16]; 2]) -> int16x8x2_t {
        // Indices of 16 and above give zero.
        let half = |i: usize| {
            neon!(vreinterpretq_s16_u8(vqtbl1q_u8(
                vld1q_u8(windows[i].as_ptr()),
                vld1q_u8(masks[i].as_ptr())
            )))
        };
        int16x8x2_t(half(0), half(1))
    }

    #[inline(always)]
    fn interleave(self, a: int16x8x2_t, b: int16x8x2_t, c: int16x8x2_t, to: &mut [i16; 3 * BLOCK]) {
        let [low, high] = to.as_chunks_mut::<24>().0 else { return };
        neon!({
            vst3q_s16(low.as_mut_ptr(), int16x8x3_t(a.0, b.0, c.0));
            vst3q_s16(high.as_mut_ptr(), int16x8x3_t(a.1, b.1, c.1));
        });
    }
}
