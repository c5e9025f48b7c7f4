//! Words to the service manager (systemd's `sd_notify` protocol): ready, alive, extended, stopping, status.
//!
//! Architecture invariant: nothing here ever blocks, whatever the manager does, and [`Service::alive`] does not
//! allocate: the supervisor calls it from a place before everybody else. Whether there is something to report
//! is the caller's to decide; without a service manager every call does nothing.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Longest status line, in bytes.
const STATUS: usize = 200;

/// The way to the service manager, where there is one.
#[derive(Debug, Default)]
pub struct Service {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    /// Why what the environment says of the manager could not be used.
    pub fault: Option<String>,
}

impl Service {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say.
    #[must_use]
    pub fn from_environment() -> Self {
        let others = env::var("WATCHDOG_PID").is_ok_and(|pid| pid != std::process::id().to_string());
        let watchdog = if others { None } else { env::var_os("WATCHDOG_USEC") };
        Self::new(env::var_os("NOTIFY_SOCKET"), watchdog)
    }

    /// The manager that listens at `socket` and wants a sign of life within `watchdog` microseconds; as its
    /// environment variables have it.
    #[must_use]
    pub fn new(socket: Option<OsString>, watchdog: Option<OsString>) -> Self {
        let Some(socket) = socket.filter(|socket| !socket.is_empty()) else { return Self::default() };
        let to = match open(&socket) {
            Ok(to) => Some(to),
            Err(error) => {
                let fault =
                    format!("NOTIFY_SOCKET={}: {error}; the service manager hears nothing", socket.display());
                return Self { fault: Some(fault), ..Self::default() };
            }
        };
        let micros = watchdog.as_deref().map(|text| text.to_str().and_then(|text| text.parse::<u64>().ok()));
        let fault = match (micros, watchdog) {
            (Some(None), Some(text)) => {
                Some(format!("WATCHDOG_USEC={} is no number of microseconds", text.display()))
            }
            _ => None,
        };
        let watchdog = micros.flatten().filter(|micros| *micros > 0).map(Duration::from_micros);
        Self { to, watchdog, fault }
    }

    /// Whether there is a service manager.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.to.is_some()
    }

    /// The process is killed when this long passes without [`Service::alive`], once it is ready; `None`: never.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The start is complete; the watchdog counts from here. Whether the manager has heard it: if not, to be said
    /// again.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.say(b"READY=1")
    }

    /// The run works: to be said on proven progress only, a few times within [`Service::watchdog`]. A word that
    /// is lost is made good by the next.
    pub fn alive(&self) {
        let _ = self.say(b"WATCHDOG=1");
    }

    /// The start or the stop goes on, and needs up to this long from now.
    pub fn extend(&self, by: Duration) {
        let _ = self.say(format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()).as_bytes());
    }

    /// The stop has begun: no watchdog from here on.
    pub fn stopping(&self) {
        let _ = self.say(b"STOPPING=1");
    }

    /// One line for people who ask the manager, cut at 200 bytes.
    pub fn status(&self, line: &str) {
        // A line's end would begin another word to the manager.
        let line = line.replace(|c: char| c.is_control(), " ");
        let _ = self.say(format!("STATUS={}", crate::job::bounded::<STATUS>(line.trim())).as_bytes());
    }

    fn say(&self, words: &[u8]) -> bool {
        let Some((socket, to)) = &self.to else { return true };
        matches!(socket.send_to_addr(words, to), Ok(sent) if sent == words.len())
    }
}

/// A socket that doesn't block, and the manager's address: a path, or a name in the abstract namespace.
fn open(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(manager: &UnixDatagram) -> String {
        let mut words = [0; 512];
        let length = manager.recv(&mut words).expect("a word");
        String::from_utf8(words[..length].to_vec()).expect("text")
    }

    fn listen(address: &SocketAddr) -> UnixDatagram {
        let manager = UnixDatagram::bind_addr(address).expect("a socket");
        manager.set_nonblocking(true).expect("a socket of ours");
        manager
    }

    #[test]
    fn the_manager_hears_what_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("ocelli-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).expect("a name");
        let named = OsString::from(format!("@{name}"));
        let at_path = SocketAddr::from_pathname(&path).expect("a path");
        for (address, variable) in [(at_path, path.into_os_string()), (abstract_name, named)] {
            let manager = listen(&address);
            let service = Service::new(Some(variable), Some("2000000".into()));
            assert_eq!((service.fault.as_deref(), service.watchdog()), (None, Some(Duration::from_secs(2))));
            assert!(service.is_managed() && service.ready());
            service.alive();
            service.extend(Duration::from_millis(1500));
            service.stopping();
            service.status("4 of 4 streams\nREADY=1");
            let said = ["READY=1", "WATCHDOG=1", "EXTEND_TIMEOUT_USEC=1500000", "STOPPING=1"];
            said.iter().for_each(|word| assert_eq!(heard(&manager), *word));
            assert_eq!(heard(&manager), "STATUS=4 of 4 streams READY=1", "one word only");
            service.status(&"é".repeat(200));
            assert_eq!(heard(&manager), format!("STATUS={}", "é".repeat(100)));
        }
    }

    #[test]
    fn a_manager_that_does_not_listen_blocks_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = listen(&SocketAddr::from_pathname(&path).expect("a path"));
        let service = Service::new(Some(path.into_os_string()), None);
        let heard_first = (0..100_000).take_while(|_| service.ready()).count();
        assert!(heard_first < 100_000, "its queue is never full");
        service.alive();
        drop(manager);
        assert!(!service.ready(), "nobody is there");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        for socket in [None, Some(OsString::new())] {
            let service = Service::new(socket, Some("2000000".into()));
            assert_eq!((service.is_managed(), service.watchdog(), service.ready()), (false, None, true));
            service.alive();
            service.status("x");
        }
    }

    #[test]
    fn what_the_environment_has_wrong_is_said() {
        for wrong in ["vsock:2:1", "relative", &format!("/{}", "x".repeat(200))] {
            let service = Service::new(Some(wrong.into()), None);
            assert!(service.fault.is_some_and(|fault| fault.contains(wrong)), "{wrong}");
        }
        for (text, watchdog) in [("0", None), ("5 s", None), ("-1", None), ("", None)] {
            let service = Service::new(Some("@nobody".into()), Some(text.into()));
            assert_eq!(service.watchdog(), watchdog);
            assert_eq!(service.fault.is_some(), text != "0", "{text}");
        }
    }
}
