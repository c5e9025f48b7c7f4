//! Controls (exposure, gain, power line frequency, trigger mode and whatever else a driver has): by their V4L2
//! names, checked against what the device says of them.

use std::fmt;
use v4l::v4l_sys as sys;

/// What a control's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number; `wide` where it has 64 bits.
    Integer {
        /// 64 bits.
        wide: bool,
    },
    /// 0 or 1.
    Boolean,
    /// The number of a menu entry.
    Menu,
    /// Bits, any of those in the maximum.
    Bitmask,
    /// Written, it does something.
    Button,
    /// Text, a matrix, a codec's parameters: not to be set from a board.
    Other,
}

impl Kind {
    /// From V4L2's number for the type.
    pub fn of(number: u32) -> Self {
        match number {
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER => Self::Integer { wide: false },
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER64 => Self::Integer { wide: true },
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN => Self::Boolean,
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU | sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU => {
                Self::Menu
            }
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BITMASK => Self::Bitmask,
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BUTTON => Self::Button,
            _ => Self::Other,
        }
    }
}

/// A control as the device describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// V4L2's number for it.
    pub id: u32,
    /// Its name as boards have it.
    pub name: String,
    /// What its value is.
    pub kind: Kind,
    /// Least value.
    pub minimum: i64,
    /// Greatest value.
    pub maximum: i64,
    /// Values are this far apart.
    pub step: u64,
    /// The value that the driver starts with.
    pub default: i64,
    /// `V4L2_CTRL_FLAG_...`
    pub flags: u32,
    /// The entries of a menu.
    pub menu: Vec<(i64, String)>,
}

/// A control's name as `v4l2-ctl` and boards have it: small letters, digits, and `_` for all that is between.
#[must_use]
pub fn name(text: &str) -> String {
    let mut name = String::new();
    for part in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()) {
        if !name.is_empty() {
            name.push('_');
        }
        name.push_str(&part.to_ascii_lowercase());
    }
    name
}

impl Control {
    /// Whether a board can set it.
    #[must_use]
    pub fn is_settable(&self) -> bool {
        let never = sys::V4L2_CTRL_FLAG_DISABLED | sys::V4L2_CTRL_FLAG_READ_ONLY;
        self.flags & never == 0 && self.kind != Kind::Other
    }

    /// Whether it is set before others: what switches automatics off comes before what they would decide.
    #[must_use]
    pub fn comes_first(&self) -> bool {
        matches!(self.kind, Kind::Boolean | Kind::Menu)
    }

    /// Whether what was written is what is read.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        let never = sys::V4L2_CTRL_FLAG_WRITE_ONLY | sys::V4L2_CTRL_FLAG_EXECUTE_ON_WRITE;
        self.flags & never == 0 && self.kind != Kind::Button
    }

    /// Whether another control, an automatic, decides its value at the moment.
    #[must_use]
    pub fn is_inactive(&self) -> bool {
        self.flags & sys::V4L2_CTRL_FLAG_INACTIVE != 0
    }

    /// Whether `value` can be set.
    ///
    /// # Errors
    /// Why not, and what could be.
    pub fn check(&self, value: i64) -> Result<(), String> {
        let allowed = match self.kind {
            Kind::Other => return Err("is no number; a board can't set it".to_owned()),
            _ if !self.is_settable() => return Err("can only be read on this device".to_owned()),
            Kind::Button => true,
            Kind::Boolean => (0..=1).contains(&value),
            Kind::Menu => self.menu.iter().any(|(entry, _)| *entry == value),
            Kind::Bitmask => value & !self.maximum == 0,
            Kind::Integer { .. } => {
                let step = i128::from(self.step.max(1));
                (self.minimum..=self.maximum).contains(&value)
                    && (i128::from(value) - i128::from(self.minimum)) % step == 0
            }
        };
        if allowed { Ok(()) } else { Err(format!("must be {self}, not {value}")) }
    }

    /// A value in words: a menu's entry by its name too.
    #[must_use]
    pub fn show(&self, value: i64) -> String {
        match self.menu.iter().find(|(entry, _)| *entry == value) {
            Some((_, name)) => format!("{} = {value} ({name})", self.name),
            None => format!("{} = {value}", self.name),
        }
    }
}

/// The values that it takes.
impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Boolean => f.write_str("0 or 1"),
            Kind::Button => f.write_str("any number"),
            Kind::Bitmask => write!(f, "bits of {:#x}", self.maximum),
            Kind::Menu => {
                let entry = |(value, name): &(i64, String)| format!("{value} ({name})");
                let entries: Vec<_> = self.menu.iter().map(entry).collect();
                write!(f, "one of {}", entries.join(", "))
            }
            Kind::Integer { .. } | Kind::Other => {
                write!(f, "{} to {}", self.minimum, self.maximum)?;
                if self.step > 1 { write!(f, " in steps of {}", self.step) } else { Ok(()) }
            }
        }
    }
}

/// A text of the kernel: up to its zero.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(kind: Kind, minimum: i64, maximum: i64, step: u64) -> Control {
        let name = "gain".to_owned();
        Control { id: 1, name, kind, minimum, maximum, step, default: 0, flags: 0, menu: Vec::new() }
    }

    #[test]
    fn names_are_those_of_v4l2_ctl() {
        for (text, expected) in [
            ("Exposure Time, Absolute", "exposure_time_absolute"),
            ("White Balance, Automatic", "white_balance_automatic"),
            ("Gain", "gain"),
            ("Power Line Frequency", "power_line_frequency"),
            (" 3D--Noise (new) ", "3d_noise_new"),
            ("", ""),
        ] {
            assert_eq!(name(text), expected);
        }
    }

    #[test]
    fn values_are_checked_by_range_and_step() {
        let gain = control(Kind::Integer { wide: false }, -4, 20, 4);
        for value in [-4, 0, 20] {
            assert_eq!(gain.check(value), Ok(()));
        }
        for value in [-8, 1, 24, i64::MIN, i64::MAX] {
            assert_eq!(gain.check(value), Err(format!("must be -4 to 20 in steps of 4, not {value}")));
        }
        let wide = control(Kind::Integer { wide: true }, i64::MIN, i64::MAX, 0);
        assert_eq!(wide.check(i64::MAX), Ok(()));
    }

    #[test]
    fn menus_take_the_entries_that_there_are() {
        let menu = vec![(1, "Manual Mode".to_owned()), (3, "Aperture Priority Mode".to_owned())];
        let exposure = Control { menu, ..control(Kind::Menu, 0, 3, 1) };
        assert_eq!((exposure.check(1), exposure.check(3)), (Ok(()), Ok(())));
        let refused = exposure.check(2).expect_err("a hole in the menu");
        assert_eq!(refused, "must be one of 1 (Manual Mode), 3 (Aperture Priority Mode), not 2");
        assert_eq!(exposure.show(1), "gain = 1 (Manual Mode)");
    }

    #[test]
    fn other_kinds_have_their_own_rules() {
        assert_eq!(control(Kind::Boolean, 0, 1, 1).check(1), Ok(()));
        assert!(control(Kind::Boolean, 0, 1, 1).check(2).is_err());
        assert_eq!(control(Kind::Bitmask, 0, 0b101, 0).check(0b100), Ok(()));
        assert!(control(Kind::Bitmask, 0, 0b101, 0).check(0b010).is_err());
        assert_eq!(control(Kind::Button, 0, 0, 0).check(77), Ok(()));
        assert!(control(Kind::Other, 0, 255, 1).check(7).is_err());
        let fixed = Control { flags: sys::V4L2_CTRL_FLAG_READ_ONLY, ..control(Kind::Boolean, 0, 1, 1) };
        assert_eq!(fixed.check(0), Err("can only be read on this device".to_owned()));
        assert_eq!(Kind::of(0x0106), Kind::Other);
        assert_eq!(Kind::of(u32::MAX), Kind::Other);
    }

    #[test]
    fn texts_end_at_their_zero() {
        assert_eq!(text(b"UVC Camera\0garbage"), "UVC Camera");
        assert_eq!(text(b"no zero"), "no zero");
        assert_eq!(text(b"\xff\0"), "\u{fffd}");
    }
}
