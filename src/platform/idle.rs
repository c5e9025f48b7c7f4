//! How deeply idle CPUs may sleep.
//!
//! A CPU that waits for its next timer or interrupt enters an idle state; the deeper it is, the less power it takes
//! and the longer the way back: a few microseconds from the first, up to milliseconds from the last (Jetson's `c7`),
//! and on a virtual machine every state costs a turn of the host. Each hand-over between two threads pays that, and
//! a batch has three. The kernel takes requests (PM QoS, Documentation/power/pm_qos_interface.rst): as long as
//! `/dev/cpu_dma_latency` is open, no state is entered that takes longer to leave than the number written there.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// Where requests are made.
const DEVICE: &str = "/dev/cpu_dma_latency";
/// Microseconds that a way back may take. With none a CPU that has nothing to do waits for an interrupt in the first state
/// (ARM), or spins (x86): on a virtual machine any other costs a turn of the host, whatever latency it states.
const LATENCY: i32 = 0;

/// A request that holds until this is dropped, or its process ends.
#[must_use]
#[derive(Debug)]
pub struct Shallow {
    _request: File,
}

impl Shallow {
    /// Asks that idle CPUs stay where the way back takes no time.
    ///
    /// # Errors
    /// The system refuses; with the remedy, in one line.
    pub fn request() -> Result<Self, String> {
        Self::at(Path::new(DEVICE))
    }

    fn at(device: &Path) -> Result<Self, String> {
        let request = OpenOptions::new().write(true).open(device).and_then(|mut file| {
            file.write_all(&LATENCY.to_ne_bytes())?;
            Ok(file)
        });
        request.map(|request| Self { _request: request }).map_err(|error| {
            format!(
                "shallow idle states refused: {}: {error}: wake-ups may come late by what idle CPUs take to wake; run \
                 as root, let the user write to it (udev), or say realtime.shallow_idle = \"no\"",
                device.display()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_four_bytes_and_a_refusal_names_the_device_and_the_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let device = folder.path().join("latency");
        let refused = Shallow::at(&device).expect_err("nothing is there").to_string();
        assert!(refused.contains("latency") && refused.contains("shallow_idle = \"no\""), "{refused}");
        std::fs::write(&device, "").expect("a file");
        drop(Shallow::at(&device).expect("it may be written"));
        assert_eq!(std::fs::read(&device).expect("the file"), [0; 4]);
    }
}
