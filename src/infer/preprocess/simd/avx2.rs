//! x86-64 with AVX2 and FMA.
#![allow(unsafe_code, reason = "intrinsics of a detected instruction set")]

use super::super::grid::BLOCK;
use super::super::kernel::{self, Work};
use super::Simd;
use std::arch::x86_64::*;

/// The processor has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Avx2(());

impl Avx2 {
    /// Proof of the instructions, where they exist.
    pub(in super::super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    /// The kernel, compiled for these instructions.
    pub(in super::super) fn render(self, work: Work<'_>) {
        #[target_feature(enable = "avx2,fma")]
        fn compiled(simd: Avx2, work: Work<'_>) {
            kernel::render(simd, work);
        }
        // SAFETY: a value of this type exists only where `detect` found both features.
        unsafe { compiled(self, work) }
    }
}

/// Intrinsics that only compute, or that read or write through the reference given to them.
macro_rules! avx2 {
    ($e:expr) => {
        // SAFETY: the caller's `self` exists only where `detect` found AVX2. Pointers come from references to
        // arrays of exactly the bytes that are read or written, and the instructions accept any alignment.
        unsafe { $e }
    };
}

/// A 16-byte pattern for both halves.
#[inline(always)]
fn both(pattern: &[i8; 16]) -> __m256i {
    avx2!(_mm256_broadcastsi128_si256(_mm_loadu_si128(pattern.as_ptr().cast())))
}

/// Where the lanes of channel `c` go: lane i to lane (3 i + c) mod 8. As 3 and 8 share no divisor this is a
/// permutation, and of each of the three output registers every channel fills lanes of its own.
const fn spread(c: usize) -> [i8; 16] {
    let mut pattern = [0; 16];
    let mut i = 0;
    while i < 8 {
        let to = (3 * i + c) % 8;
        pattern[2 * to] = 2 * i as i8;
        pattern[2 * to + 1] = 2 * i as i8 + 1;
        i += 1;
    }
    pattern
}

/// Lanes of output register `k` that hold channel `c`, as a blend's bits.
const fn held(k: usize, c: usize) -> i32 {
    let mut bits = 0;
    let mut lane = 0;
    while lane < 8 {
        if (8 * k + lane) % 3 == c {
            bits |= 1 << lane;
        }
        lane += 1;
    }
    bits
}

impl Simd for Avx2 {
    type Lanes = __m256i;

    #[inline(always)]
    fn splat(self, value: i16) -> __m256i {
        avx2!(_mm256_set1_epi16(value))
    }

    #[inline(always)]
    fn load(self, from: &[i16; BLOCK]) -> __m256i {
        avx2!(_mm256_loadu_si256(from.as_ptr().cast()))
    }

    #[inline(always)]
    fn store(self, lanes: __m256i, to: &mut [i16; BLOCK]) {
        avx2!(_mm256_storeu_si256(to.as_mut_ptr().cast(), lanes));
    }

    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_add_epi16(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_sub_epi16(a, b))
    }

    #[inline(always)]
    fn saturating_add(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_adds_epi16(a, b))
    }

    #[inline(always)]
    fn clamp(self, a: __m256i, low: __m256i, high: __m256i) -> __m256i {
        avx2!(_mm256_min_epi16(_mm256_max_epi16(a, low), high))
    }

    #[inline(always)]
    fn scale(self, a: __m256i, w: __m256i) -> __m256i {
        avx2!(_mm256_mulhrs_epi16(a, w))
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self, a: __m256i) -> __m256i {
        avx2!(_mm256_slli_epi16::<BITS>(a))
    }

    #[inline(always)]
    fn shuffle(self, windows: [&[u8; 16]; 2], masks: &[[u8; 16]; 2]) -> __m256i {
        avx2!(_mm256_shuffle_epi8(
            _mm256_loadu2_m128i(windows[1].as_ptr().cast(), windows[0].as_ptr().cast()),
            _mm256_loadu_si256(masks.as_ptr().cast()),
        ))
    }

    #[inline(always)]
    fn interleave(self, a: __m256i, b: __m256i, c: __m256i, to: &mut [i16; 3 * BLOCK]) {
        let [low, high] = to.as_chunks_mut::<24>().0 else { return };
        avx2!({
            let a = _mm256_shuffle_epi8(a, both(const { &spread(0) }));
            let b = _mm256_shuffle_epi8(b, both(const { &spread(1) }));
            let c = _mm256_shuffle_epi8(c, both(const { &spread(2) }));
            let first = _mm256_blend_epi16::<{ held(0, 2) }>(_mm256_blend_epi16::<{ held(0, 1) }>(a, b), c);
            let second = _mm256_blend_epi16::<{ held(1, 2) }>(_mm256_blend_epi16::<{ held(1, 1) }>(a, b), c);
            let third = _mm256_blend_epi16::<{ held(2, 2) }>(_mm256_blend_epi16::<{ held(2, 1) }>(a, b), c);
            // Each register holds eight lanes of either half's output.
            let (low, high) = (low.as_mut_ptr(), high.as_mut_ptr());
            _mm256_storeu2_m128i(high.cast(), low.cast(), first);
            _mm256_storeu2_m128i(high.add(8).cast(), low.add(8).cast(), second);
            _mm256_storeu2_m128i(high.add(16).cast(), low.add(16).cast(), third);
        });
    }
}
