//! NVIDIA TensorRT and TensorRT-RTX.
//!
//! What is known about a plan without them lies here always; what calls them is compiled with the feature `tensorrt`,
//! through the bridge to `cpp/`, and opens their libraries at run time.

#[cfg(feature = "tensorrt")]
mod backend;
#[cfg(feature = "tensorrt")]
mod bridge;
#[cfg(feature = "tensorrt")]
pub mod builder;
#[cfg(feature = "tensorrt")]
pub mod compiled;
#[cfg(feature = "tensorrt")]
pub mod cuda;
#[cfg(feature = "tensorrt")]
pub mod golden;
#[cfg(feature = "tensorrt")]
pub mod kernels;
#[cfg(feature = "tensorrt")]
pub mod lane;
#[cfg(feature = "tensorrt")]
pub mod library;
#[cfg(feature = "tensorrt")]
pub mod memory;
#[cfg(feature = "tensorrt")]
pub mod network;
pub mod passport;
#[cfg(feature = "tensorrt")]
mod progress;
pub mod signature;
#[cfg(feature = "tensorrt")]
pub mod stream;
#[cfg(feature = "tensorrt")]
mod upload;

#[cfg(feature = "tensorrt")]
pub use backend::{Building, Settings, TensorRt};
#[cfg(feature = "tensorrt")]
pub use progress::{Progress, Step};

use std::fmt;

/// A version of TensorRT, or of TensorRT-RTX, which has numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// TensorRT-RTX.
    pub rtx: bool,
    /// Plans and interfaces of another major version are not understood.
    pub major: i32,
    /// Plans of another minor version are not taken, unless built to be.
    pub minor: i32,
    /// Corrections.
    pub patch: i32,
}

impl Version {
    /// The product's name.
    #[must_use]
    pub const fn product(&self) -> &'static str {
        if self.rtx { "TensorRT-RTX" } else { "TensorRT" }
    }

    /// Whether contexts of one engine may have an optimization profile in common. Before, each needs its own.
    #[must_use]
    pub const fn shares_profiles(&self) -> bool {
        self.rtx || self.major >= 10
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{}.{}", self.product(), self.major, self.minor, self.patch)
    }
}
