//! What a plan's contexts compile on the device, kept beside the plan so that later starts need not. Only TensorRT-RTX
//! compiles there.

use super::network::Network;
use super::passport::write;
use std::fs;
use std::path::{Path, PathBuf};

/// What was compiled when the plan was built on this device, or at an earlier start: beside its plan, or where that would
/// lie had it been built here.
#[derive(Debug)]
pub struct Compiled {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Compiled {
    /// What is kept for the plan at this path; nothing before it was run on this device.
    #[must_use]
    pub fn of(plan: &Path) -> Self {
        let path = plan.with_extension("compiled");
        Self { bytes: fs::read(&path).unwrap_or_default(), path }
    }

    /// It, as TensorRT wrote it; may be empty.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Keeps what the network's contexts have compiled, where that is something else. Without it the next start takes
    /// longer, and no more.
    pub fn renew(&self, network: &Network) {
        let kept = match network.compiled() {
            Ok(compiled) if compiled.is_empty() || compiled == self.bytes => Ok(()),
            Ok(compiled) => write(&self.path, &compiled),
            Err(why) => Err(why),
        };
        if let Err(why) = kept {
            log::warn!(
                "model {}: its compiled kernels can't be kept, so that every start compiles them: {why}",
                network.id
            );
        }
    }
}
