//! A hardware watchdog of our own (`/dev/watchdogN`): it resets the board when nobody keeps it alive.
//!
//! Architecture invariant: **opening arms it.** From then on only [`WatchdogDevice::disarm`] makes it safe to
//! leave; a device that is dropped, or whose process dies, stays armed, so that a restart that fails ends in a
//! reset. One owner: the kernel lets nobody else open it.
#![allow(unsafe_code)] // The device speaks ioctl.

use rustix::ioctl::{Getter, Opcode, Updater, ioctl, opcode};
use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a restart by the service manager may take until the next process has opened the device: the kernel takes
/// the old one down, the manager waits `RestartSec=`, the new one reads its board.
pub const RESTART: Duration = Duration::from_secs(5);

/// The driver has been told to stop when closed after this (`WDIOF_MAGICCLOSE`).
const MAGIC: &[u8] = b"V";
const MAGIC_CLOSE: u32 = 0x100;

/// `struct watchdog_info`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

const GET_SUPPORT: Opcode = opcode::read::<Info>(b'W', 0);
const GET_BOOT_STATUS: Opcode = opcode::read::<c_int>(b'W', 2);
const SET_TIMEOUT: Opcode = opcode::read_write::<c_int>(b'W', 6);
const GET_TIMEOUT: Opcode = opcode::read::<c_int>(b'W', 7);

/// An armed watchdog.
#[derive(Debug)]
pub struct WatchdogDevice {
    file: File,
    path: PathBuf,
    identity: String,
    timeout: Duration,
    boot_status: Option<u32>,
    /// Why it can't be stopped, if it can't.
    unstoppable: Option<&'static str>,
    disarmed: AtomicBool,
}

/// Why a watchdog device can't be had, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchdogError {
    /// The timeout is too short for what stands before it.
    #[error("{0}")]
    TooShort(String),
    /// The device can't be opened, or does not do what is asked.
    #[error("{0}")]
    Refused(String),
}

/// Whether a hardware watchdog of this `timeout` leaves room for the service manager's, if there is one, to end
/// the process and start it again.
///
/// # Errors
/// What would be long enough.
pub fn leaves_room(timeout: Duration, service: Option<Duration>) -> Result<(), WatchdogError> {
    let before = service.unwrap_or_default() + RESTART;
    if timeout > before {
        return Ok(());
    }
    Err(WatchdogError::TooShort(format!(
        "a hardware watchdog of {} s would reset the board before the service manager had restarted the runtime \
         (WatchdogSec= {} s and {} s for the restart); let it be {} s or more, or WatchdogSec= shorter",
        timeout.as_secs_f64(),
        service.unwrap_or_default().as_secs_f64(),
        RESTART.as_secs(),
        before.as_secs() + 1
    )))
}

impl WatchdogDevice {
    /// Opens the device at `path`, **which arms it**, with a `timeout` in whole seconds that leaves room for the
    /// service manager's watchdog.
    ///
    /// # Errors
    /// Whatever the device refuses; then it is disarmed again, as far as it can be.
    pub fn open(path: &Path, timeout: Duration, service: Option<Duration>) -> Result<Self, WatchdogError> {
        leaves_room(timeout, service)?;
        let file = OpenOptions::new().write(true).open(path).map_err(|error| unopened(path, &error))?;
        let mut device = Self {
            file,
            path: path.to_owned(),
            identity: String::new(),
            timeout,
            boot_status: None,
            unstoppable: Some("it is not known whether it can be stopped"),
            disarmed: AtomicBool::new(false),
        };
        match device.set_up(service) {
            Ok(()) => Ok(device),
            Err(error) => {
                let _ = device.disarm();
                Err(error)
            }
        }
    }

    fn set_up(&mut self, service: Option<Duration>) -> Result<(), WatchdogError> {
        let (asked, at) = (self.timeout, self.path.display());
        let refused = |what: &str, error: io::Error| {
            WatchdogError::Refused(format!("{at}: {what}: {error}; is this a watchdog?"))
        };
        // SAFETY: the kernel writes a `watchdog_info`, of which `Info` is the layout, at this opcode.
        let info = unsafe { ioctl(&self.file, Getter::<GET_SUPPORT, Info>::new()) }
            .map_err(|error| refused("no answer", error.into()))?;
        let name = info.identity.split(|byte| *byte == 0).next().unwrap_or_default();
        self.identity = String::from_utf8_lossy(name).trim().to_owned();
        self.unstoppable = if info.options & MAGIC_CLOSE == 0 {
            Some("its driver can't be stopped (no magic close)")
        } else if nowayout(&self.path) {
            Some("its driver is set never to stop (nowayout)")
        } else {
            None
        };
        // SAFETY: the kernel writes an int at this opcode.
        let status = unsafe { ioctl(&self.file, Getter::<GET_BOOT_STATUS, c_int>::new()) };
        self.boot_status = status.ok().map(c_int::cast_unsigned);
        let mut seconds = c_int::try_from(asked.as_secs()).unwrap_or(c_int::MAX);
        // SAFETY: the kernel reads an int at this opcode, and writes there what it made of it.
        let set = unsafe { ioctl(&self.file, Updater::<SET_TIMEOUT, c_int>::new(&mut seconds)) };
        // SAFETY: the kernel writes an int at this opcode.
        let got = unsafe { ioctl(&self.file, Getter::<GET_TIMEOUT, c_int>::new()) };
        let got = got.map_err(|error| refused("it does not tell its timeout", error.into()))?;
        self.timeout = Duration::from_secs(u64::try_from(got).unwrap_or(0));
        if self.timeout == asked {
            return Ok(());
        }
        let has = format!(
            "{at} ({}) keeps a timeout of {got} s where {} s were asked for",
            self.identity,
            asked.as_secs()
        );
        let has = set.err().map_or(has.clone(), |error| format!("{has}: {error}"));
        leaves_room(self.timeout, service)
            .map_err(|error| WatchdogError::TooShort(format!("{has}; {error}")))?;
        log::warn!("{has}; it holds all the same");
        Ok(())
    }

    /// Puts the reset off by the whole timeout. Cheap: one system call, no allocation. Nothing once disarmed.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn keep_alive(&self) -> io::Result<()> {
        if self.disarmed.load(Ordering::Acquire) {
            return Ok(());
        }
        // Any byte but the magic one is a sign of life, and every driver takes it; the ioctl for it not all.
        (&self.file).write_all(&[0])
    }

    /// Stops the watchdog, as soon as its file is closed (by the last owner of this, or the process's end): the
    /// orderly end.
    ///
    /// # Errors
    /// Why it may reset the board all the same.
    pub fn disarm(&self) -> Result<(), WatchdogError> {
        let stays = |why: &str| {
            WatchdogError::Refused(format!(
                "{} ({}) stays armed: {why}; without the runtime the board resets in {} s",
                self.path.display(),
                self.identity,
                self.timeout.as_secs()
            ))
        };
        if let Some(why) = self.unstoppable {
            return Err(stays(why));
        }
        // First: a sign of life after the magic byte would take it back.
        self.disarmed.store(true, Ordering::Release);
        if let Err(error) = (&self.file).write_all(MAGIC) {
            return Err(stays(&error.to_string()));
        }
        Ok(())
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its driver calls itself.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// From the last sign of life to the reset, as the device has it.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Why the board was reset before this start, in the driver's flags (`WDIOF_*`), where the driver knows.
    #[must_use]
    pub fn boot_status(&self) -> Option<u32> {
        self.boot_status
    }
}

/// Whether the driver ignores the magic close, where the kernel tells.
fn nowayout(device: &Path) -> bool {
    let name = device.file_name().unwrap_or_default();
    let path = Path::new("/sys/class/watchdog").join(name).join("nowayout");
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}

fn unopened(path: &Path, error: &io::Error) -> WatchdogError {
    let remedy = match error.kind() {
        ErrorKind::NotFound => "load the board's watchdog driver, or name one of /dev/watchdog*",
        ErrorKind::ResourceBusy => {
            "somebody has it: where that is systemd (RuntimeWatchdogSec=), say hardware_watchdog = \"systemd\""
        }
        ErrorKind::PermissionDenied => {
            "let the runtime's user write to it: boards/system/60-ocelli.rules does, and DeviceAllow= of the unit"
        }
        _ => "name another one of /dev/watchdog*",
    };
    WatchdogError::Refused(format!("hardware watchdog {}: {error}; {remedy}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn the_hardware_waits_longer_than_the_service_manager() {
        for (timeout, service, room) in [
            (S(10), None, true),
            (S(5), None, false),
            (S(10), Some(S(4)), true),
            (S(10), Some(S(5)), false),
            (S(60), Some(S(60)), false),
        ] {
            assert_eq!(leaves_room(timeout, service).is_ok(), room, "{timeout:?} {service:?}");
        }
        let said = leaves_room(S(10), Some(Duration::from_millis(9500))).expect_err("too short").to_string();
        assert!(said.contains("10 s") && said.contains("9.5 s") && said.contains("15 s or more"), "{said}");
    }

    #[test]
    fn what_is_no_watchdog_is_refused_with_the_remedy() {
        let refused = |path: &Path| WatchdogDevice::open(path, S(60), None).expect_err("refused").to_string();
        assert!(refused(Path::new("/dev/watchdog99")).contains("load the board's watchdog driver"));
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(refused(file.path()).contains("is this a watchdog?"), "{}", refused(file.path()));
        let busy = io::Error::from(ErrorKind::ResourceBusy);
        assert!(
            unopened(Path::new("/dev/watchdog0"), &busy)
                .to_string()
                .contains("hardware_watchdog = \"systemd\"")
        );
        let denied = io::Error::from(ErrorKind::PermissionDenied);
        assert!(unopened(Path::new("/dev/watchdog0"), &denied).to_string().contains("60-ocelli.rules"));
    }

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(size_of::<Info>(), 40);
        assert_eq!((GET_SUPPORT, GET_BOOT_STATUS), (0x8028_5700, 0x8004_5702));
        assert_eq!((SET_TIMEOUT, GET_TIMEOUT), (0xC004_5706, 0x8004_5707));
    }
}
