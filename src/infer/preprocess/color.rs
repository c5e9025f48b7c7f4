//! Colour in integers: Y'CbCr to R'G'B', and luma.

use super::grid::BLOCK;
use super::simd::Simd;
use crate::image::{Colorimetry, Matrix, Range};

/// Fraction bits of a pixel value on its way.
pub(super) const VALUE_BITS: u32 = 6;
/// 255, the largest pixel value.
pub(super) const WHITE: i16 = 255 << VALUE_BITS;
/// The code value of zero chroma.
const NEUTRAL: i16 = 128 << VALUE_BITS;

/// One conversion's constants, as in the module's table. Weights have 15 fraction bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coefficients {
    /// Code value of black, with the fraction bits of a value.
    pub(super) black: i16,
    /// (255 / 219 - 1), or 0 for full range.
    pub(super) luma: i16,
    /// (a - 2) / 2 where red is luma + a Cr.
    pub(super) red_cr: i16,
    /// (d - 2) / 2 where blue is luma + d Cb.
    pub(super) blue_cb: i16,
    /// b / 2 where green is luma - b Cb - c Cr.
    pub(super) green_cb: i16,
    /// c / 2.
    pub(super) green_cr: i16,
    /// Kr, red's share of luma.
    pub(super) kr: i16,
    /// Kb, blue's share of luma.
    pub(super) kb: i16,
}

impl Coefficients {
    /// The constants for an image.
    pub(super) const fn of(color: Colorimetry) -> Self {
        let (kr, kb) = match color.matrix {
            Matrix::Bt601 => (9798, 3736),
            Matrix::Bt709 => (6966, 2366),
        };
        let (black, luma) = match color.range {
            Range::Limited => (16 << VALUE_BITS, 5387),
            Range::Full => (0, 0),
        };
        let (red_cr, blue_cb, green_cb, green_cr) = match (color.matrix, color.range) {
            (Matrix::Bt601, Range::Limited) => (-6619, 282, 6419, 13320),
            (Matrix::Bt601, Range::Full) => (-9798, -3736, 5638, 11700),
            (Matrix::Bt709, Range::Limited) => (-3396, 1842, 3494, 8731),
            (Matrix::Bt709, Range::Full) => (-6966, -2366, 3069, 7670),
        };
        Self { black, luma, red_cr, blue_cb, green_cb, green_cr, kr, kb }
    }

    /// The same with red and blue, Cr and Cb, in each other's place.
    pub(super) const fn swapped(self) -> Self {
        Self {
            red_cr: self.blue_cb,
            blue_cb: self.red_cr,
            green_cb: self.green_cr,
            green_cr: self.green_cb,
            kr: self.kb,
            kb: self.kr,
            ..self
        }
    }
}

/// The constants spread over lanes.
#[derive(Clone, Copy)]
pub(super) struct Mixer<S: Simd> {
    simd: S,
    zero: S::Lanes,
    white: S::Lanes,
    neutral: S::Lanes,
    black: S::Lanes,
    luma: S::Lanes,
    red_cr: S::Lanes,
    blue_cb: S::Lanes,
    green_cb: S::Lanes,
    green_cr: S::Lanes,
    kr: S::Lanes,
    kb: S::Lanes,
}

impl<S: Simd> Mixer<S> {
    #[inline(always)]
    pub(super) fn new(simd: S, of: &Coefficients) -> Self {
        Self {
            simd,
            zero: simd.splat(0),
            white: simd.splat(WHITE),
            neutral: simd.splat(NEUTRAL),
            black: simd.splat(of.black),
            luma: simd.splat(of.luma),
            red_cr: simd.splat(of.red_cr),
            blue_cb: simd.splat(of.blue_cb),
            green_cb: simd.splat(of.green_cb),
            green_cr: simd.splat(of.green_cr),
            kr: simd.splat(of.kr),
            kb: simd.splat(of.kb),
        }
    }

    /// Luma over the full range, not yet clamped: at most 17812, at least -1192.
    #[inline(always)]
    fn expanded(&self, y: S::Lanes) -> S::Lanes {
        let y = self.simd.sub(y, self.black);
        self.simd.add(y, self.simd.scale(y, self.luma))
    }

    /// Luma over the full range.
    #[inline(always)]
    pub(super) fn gray(&self, y: S::Lanes) -> S::Lanes {
        self.clamped(self.expanded(y))
    }

    /// Red, green and blue of luma and chroma.
    #[inline(always)]
    pub(super) fn rgb(&self, [y, cb, cr]: [S::Lanes; 3]) -> [S::Lanes; 3] {
        let s = self.simd;
        let y = self.expanded(y);
        let (cb, cr) = (self.twice_centred(cb), self.twice_centred(cr));
        let red = s.saturating_add(y, s.add(cr, s.scale(cr, self.red_cr)));
        let blue = s.saturating_add(y, s.add(cb, s.scale(cb, self.blue_cb)));
        let green = s.sub(s.sub(y, s.scale(cb, self.green_cb)), s.scale(cr, self.green_cr));
        [self.clamped(red), self.clamped(green), self.clamped(blue)]
    }

    #[inline(always)]
    fn twice_centred(&self, chroma: S::Lanes) -> S::Lanes {
        let centred = self.simd.sub(chroma, self.neutral);
        self.simd.add(centred, centred)
    }

    #[inline(always)]
    fn clamped(&self, value: S::Lanes) -> S::Lanes {
        self.simd.clamp(value, self.zero, self.white)
    }

    /// Luma of red, green and blue: between the least and the greatest of them, white stays white.
    #[inline(always)]
    pub(super) fn luma(&self, [red, green, blue]: [S::Lanes; 3]) -> S::Lanes {
        let s = self.simd;
        let luma =
            s.add(s.add(green, s.scale(s.sub(red, green), self.kr)), s.scale(s.sub(blue, green), self.kb));
        self.clamped(luma)
    }
}

/// Lanes between `a` and `b`, `weight` / 2^15 of the way.
#[inline(always)]
pub(super) fn between<S: Simd>(simd: S, a: S::Lanes, b: S::Lanes, weight: S::Lanes) -> S::Lanes {
    simd.add(a, simd.scale(simd.sub(b, a), weight))
}

/// Lanes in memory.
pub(super) type Block = [i16; BLOCK];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::preprocess::simd::Portable;

    fn fixed(value: f64) -> i16 {
        (value * 32768.0).round() as i16
    }

    #[test]
    fn constants_follow_from_kr_and_kb() {
        for (matrix, kr, kb) in [(Matrix::Bt601, 0.299, 0.114), (Matrix::Bt709, 0.2126, 0.0722)] {
            for (range, luma, chroma) in
                [(Range::Limited, 255.0 / 219.0, 255.0 / 224.0), (Range::Full, 1.0, 1.0)]
            {
                let kg = 1.0 - kr - kb;
                let (a, d) = (2.0 * (1.0 - kr) * chroma, 2.0 * (1.0 - kb) * chroma);
                let derived = Coefficients {
                    black: if range == Range::Limited { 16 * 64 } else { 0 },
                    luma: fixed(luma - 1.0),
                    red_cr: fixed((a - 2.0) / 2.0),
                    blue_cb: fixed((d - 2.0) / 2.0),
                    green_cb: fixed(d * kb / kg / 2.0),
                    green_cr: fixed(a * kr / kg / 2.0),
                    kr: fixed(kr),
                    kb: fixed(kb),
                };
                assert_eq!(Coefficients::of(Colorimetry { matrix, range }), derived, "{matrix:?} {range:?}");
            }
        }
    }

    /// Every corner of the code values, in wide integers: nothing wraps, and what saturates is clamped anyway.
    #[test]
    fn no_code_value_overflows_a_lane() {
        for matrix in [Matrix::Bt601, Matrix::Bt709] {
            for range in [Range::Limited, Range::Full] {
                let k = Coefficients::of(Colorimetry { matrix, range });
                let mixer = Mixer::new(Portable, &k);
                let scale = |a: i64, w: i16| (a * i64::from(w) + (1 << 14)) >> 15;
                let codes = [0, 1, 16, 64, 128, 200, 235, 240, 254, 255].map(|code: i16| code << VALUE_BITS);
                for y in codes {
                    for cb in codes {
                        for cr in codes {
                            let [r, g, b] =
                                mixer.rgb([y, cb, cr].map(|value| [value; BLOCK])).map(|lanes| lanes[0]);
                            let l = i64::from(y - k.black);
                            let l = l + scale(l, k.luma);
                            let (u, v) = (2 * i64::from(cb - NEUTRAL), 2 * i64::from(cr - NEUTRAL));
                            let wide = [
                                l + v + scale(v, k.red_cr),
                                l - scale(u, k.green_cb) - scale(v, k.green_cr),
                                l + u + scale(u, k.blue_cb),
                            ];
                            assert_eq!(
                                [r, g, b].map(i64::from),
                                wide.map(|value| value.clamp(0, i64::from(WHITE)))
                            );
                        }
                    }
                }
            }
        }
    }
}
