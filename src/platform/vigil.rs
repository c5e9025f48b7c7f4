//! Signs of life while there are no frames that could prove it: at start, when models load, engines are built and
//! service times measured, and at the stop.
//!
//! They prove only that the process is there, so they end after a while, whatever happens: what hangs longer is
//! left to the service manager and the hardware watchdog.

use crate::platform::service::Service;
use crate::platform::watchdog_device::WatchdogDevice;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// From one sign of life to the next: many times within the shortest hardware watchdog of a board.
const EVERY: Duration = Duration::from_secs(1);
/// How much time the service manager is asked for with each: what a busy machine may hold up the next.
const EXTENSION: Duration = Duration::from_secs(15);

/// Signs of life, until it ends.
#[derive(Debug)]
pub struct Vigil {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Vigil {
    /// Begins; for `longest` at most.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn keep(
        service: Arc<Service>,
        device: Option<Arc<WatchdogDevice>>,
        longest: Duration,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let began = Instant::now();
        let watch = move || {
            let mut over = false;
            loop {
                if began.elapsed() < longest {
                    service.extend(EXTENSION);
                    if let Some(device) = &device {
                        // Should it be gone, the reset says so.
                        let _ = device.keep_alive();
                    }
                } else if !std::mem::replace(&mut over, true) {
                    log::error!(
                        "this takes longer than {} s: no more signs of life to the service manager and the \
                         hardware watchdog",
                        longest.as_secs()
                    );
                }
                if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("vigil".to_owned()).spawn(watch)?;
        Ok(Self { stop, thread })
    }

    /// Ends: somebody else gives signs of life from here on.
    pub fn end(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn the_manager_is_asked_for_time_until_it_ends_and_not_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        let service = Arc::new(Service::new(Some(path.into_os_string()), None));
        let vigil = Vigil::keep(service.clone(), None, Duration::from_secs(60)).expect("a thread");
        let mut words = [0; 64];
        for _ in 0..2 {
            let length = manager.recv(&mut words).expect("a word");
            assert_eq!(&words[..length], b"EXTEND_TIMEOUT_USEC=15000000");
        }
        vigil.end();
        manager.set_nonblocking(true).expect("a socket");
        while manager.recv(&mut words).is_ok() {}
        let over = Vigil::keep(service, None, Duration::ZERO).expect("a thread");
        over.end();
        assert!(manager.recv(&mut words).is_err(), "its time was over");
    }
}
