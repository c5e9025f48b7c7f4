//! What stands around a run: the service manager, the hardware watchdog, and what is known of the run and the
//! machine before.

use crate::cli::{Exit, Failure};
use ocelli::board::{Board, HardwareWatchdog};
use ocelli::platform::clock;
use ocelli::platform::reset::Reset;
use ocelli::platform::service::Service;
use ocelli::platform::systemd::{self, Fed};
use ocelli::platform::vigil::Vigil;
use ocelli::platform::watchdog_device::{RESTART, WatchdogDevice, WatchdogError};
use ocelli::runtime::{Last, LastError, Previous, Proof};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Longest that a start gets signs of life without a frame: engines build for ten minutes and more.
const LONGEST_START: Duration = Duration::from_secs(20 * 60);
/// The same for a stop, in which everything has its own patience.
const LONGEST_STOP: Duration = Duration::from_secs(60);
/// How often a run that works says so.
const SIGN_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Guards {
    pub(super) service: Arc<Service>,
    pub(super) last: Option<Last>,
    device: Option<Arc<WatchdogDevice>>,
    vigil: Option<Vigil>,
    reset: Reset,
    previous: Previous,
}

impl Guards {
    /// Reads and tells what is known of the run and the machine before, and arms the watchdog where the board
    /// asks for it. From here on [`Guards::release`] has to be called, whatever happens.
    pub(super) fn mount(board: &Board) -> Result<Self, Failure> {
        let service = Arc::new(Service::from_environment());
        service.fault.iter().for_each(|fault| log::warn!("{fault}"));
        let mut reset = Reset::read();
        let last = board.supervision.state_dir.as_deref().map(|folder| Last::open(folder, board));
        let last = kept(&service, last.transpose())?;
        let previous = last.as_ref().map_or(Previous::None, |last| last.previous.clone());
        tell_previous(&previous);
        let device = watchdog(board, &service)?;
        if let Some(device) = &device {
            let name = device.path().file_name().unwrap_or_default().to_string_lossy();
            reset.add(&name, device.identity(), device.boot_status().unwrap_or(0));
        }
        tell_reset(&reset);
        let mut guards = Self { service, last, device: device.map(Arc::new), vigil: None, reset, previous };
        guards.hold(LONGEST_START)?;
        Ok(guards)
    }

    /// Gives signs of life, until [`Guards::begun`].
    fn hold(&mut self, longest: Duration) -> Result<(), Failure> {
        let vigil = Vigil::keep(self.service.clone(), self.device.clone(), longest)
            .map_err(|error| Failure::new(Exit::Internal, format!("can't start a thread: {error}")))?;
        self.vigil = Some(vigil);
        Ok(())
    }

    /// The sign of life of a run that works, as long as there is proof of it: to be called more often than it is
    /// heard, which is every second, or four times within the service manager's watchdog.
    pub(super) fn sign(&self, proof: &Arc<Proof>) -> Box<dyn FnMut() + Send> {
        let (service, device, proof) = (self.service.clone(), self.device.clone(), proof.clone());
        let every = service.watchdog().map_or(SIGN_EVERY, |watchdog| (watchdog / 4).min(SIGN_EVERY));
        let mut next = clock::now();
        Box::new(move || {
            let now = clock::now();
            if now < next || !proof.stands(now) {
                return;
            }
            next = now + every;
            service.alive();
            if let Some(device) = &device {
                // Should it be gone, the reset says so.
                let _ = device.keep_alive();
            }
        })
    }

    /// The run has begun: it gives signs of life itself.
    pub(super) fn begun(&mut self) {
        self.vigil.take().into_iter().for_each(Vigil::end);
    }

    /// The run comes to its end.
    pub(super) fn stopping(&mut self) -> Result<(), Failure> {
        self.service.stopping();
        self.hold(LONGEST_STOP)
    }

    /// Disarms the watchdog after an orderly end, and leaves it armed after a defect of ours: if nobody starts
    /// the runtime again, the board is reset.
    pub(super) fn release(&mut self, ended: &Result<(), Failure>) {
        self.begun();
        let Some(device) = &self.device else { return };
        if matches!(ended, Err(Failure { exit: Exit::Internal, .. })) {
            log::warn!(
                "{} stays armed: unless the runtime is started again, the board is reset in {} s",
                device.path().display(),
                device.timeout().as_secs()
            );
        } else if let Err(error) = device.disarm() {
            log::warn!("{error}");
        }
    }

    /// What the summary tells of what was before.
    pub(super) fn before(&self) -> Value {
        let watchdogs = self.reset.watchdogs.iter().map(|watchdog| {
            json!({
                "name": watchdog.name,
                "identity": watchdog.identity,
                "flags": watchdog.flags,
                "meaning": watchdog.meaning(),
            })
        });
        let previous = match &self.previous {
            Previous::None => Value::Null,
            Previous::Unread(why) => json!({ "ended": "unknown", "why": why }),
            Previous::Run(run) => run.to_json(),
        };
        json!({
            "previous_run": previous,
            "machine_reset": {
                "watchdogs": watchdogs.collect::<Vec<_>>(),
                "reason": self.reset.reason,
                "crash_logs": self.reset.crash_logs,
            },
        })
    }
}

/// What keeps the last ledger, where it can be kept. A run by hand ends without; a service goes on: that its cameras are
/// seen is worth more than an account of them, and a full disk does not pass by starting again.
pub(super) fn kept<T>(service: &Service, kept: Result<Option<T>, LastError>) -> Result<Option<T>, Failure> {
    match kept {
        Err(error) if service.is_managed() => {
            log::error!(
                "{error}. This run goes on without it: should it be cut off, the next start can't tell of it"
            );
            Ok(None)
        }
        kept => kept.map_err(|error| Failure::new(Exit::CantCreate, error)),
    }
}

/// Opens the board's own watchdog, or makes sure that somebody else feeds one.
fn watchdog(board: &Board, service: &Service) -> Result<Option<WatchdogDevice>, Failure> {
    match &board.supervision.hardware_watchdog {
        HardwareWatchdog::None => Ok(None),
        HardwareWatchdog::Systemd => {
            let remedy =
                "set RuntimeWatchdogSec= in /etc/systemd/system.conf, or the board stays hung when it hangs";
            match systemd::hardware_watchdog() {
                Fed::Yes => log::info!("hardware watchdog: armed, by systemd as the board says"),
                Fed::No(why) => log::warn!(
                    "supervision.hardware_watchdog = \"systemd\", but no watchdog is armed ({why}): {remedy}"
                ),
                Fed::Unknown(why) => log::warn!(
                    "supervision.hardware_watchdog = \"systemd\", but whether it is armed nobody tells ({why}): {remedy}"
                ),
            }
            Ok(None)
        }
        HardwareWatchdog::Device { path, timeout } => {
            let device = WatchdogDevice::open(path, *timeout, service.watchdog()).map_err(|error| {
                let exit = match error {
                    WatchdogError::TooShort(_) => Exit::Config,
                    WatchdogError::Refused(_) => Exit::Refused,
                };
                Failure::new(exit, format!("supervision.hardware_watchdog: {error}"))
            })?;
            log::info!(
                "hardware watchdog: {} ({}) is armed: it resets the board {} s after the last sign of life{}",
                path.display(),
                device.identity(),
                device.timeout().as_secs(),
                match service.watchdog() {
                    Some(watchdog) => format!(
                        "; before it the service manager restarts the runtime after {} s, which may take {} s",
                        watchdog.as_secs_f64(),
                        RESTART.as_secs()
                    ),
                    None => String::new(),
                }
            );
            Ok(Some(device))
        }
    }
}

fn tell_reset(reset: &Reset) {
    let told = reset.to_string();
    if reset.is_alarming() {
        log::warn!("{told}");
    } else if !told.is_empty() {
        log::info!("{told}");
    }
}

fn tell_previous(previous: &Previous) {
    match previous {
        Previous::None => {}
        Previous::Unread(why) => log::warn!("last ledger: {why}"),
        Previous::Run(run) if run.was_cut_off() => run.lines().iter().for_each(|line| log::warn!("{line}")),
        Previous::Run(run) => run.lines().iter().for_each(|line| log::info!("{line}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli::runtime::Frames;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn without_proof_there_is_no_sign_of_life() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        manager.set_nonblocking(true).expect("a socket");
        let service = Service::new(Some(path.into_os_string()), Some("4000000".into()));
        let guards = Guards {
            service: Arc::new(service),
            last: None,
            device: None,
            vigil: None,
            reset: Reset::default(),
            previous: Previous::None,
        };
        let long_ago = clock::now().saturating_sub(Duration::from_secs(60));
        let proof = Arc::new(Proof::new(long_ago, Duration::from_secs(1)));
        let mut sign = guards.sign(&proof);
        let mut heard = || {
            sign();
            let mut word = [0; 32];
            manager.recv(&mut word).ok().map(|length| word[..length].to_vec())
        };
        assert_eq!(heard(), None, "frames are wanted and nothing was served for a minute");
        assert!(proof.given_by(clock::now(), Frames { served: 1, wanted: 9 }));
        assert_eq!(heard().as_deref(), Some(&b"WATCHDOG=1"[..]));
        assert_eq!(heard(), None, "not again within the second");
    }
}
