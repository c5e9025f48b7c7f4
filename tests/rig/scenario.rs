//! A scenario: cameras, a board, what happens when, and what must be seen.

use crate::expected::Expect;
use crate::lie::Lie;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// One file of `tests/rig/scenarios`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What happens, in words.
    pub title: String,
    #[serde(default)]
    pub suite: Suite,
    /// Whether `--suite core` runs it, too.
    #[serde(default)]
    pub core: bool,
    /// Run it twice, on two machines: everything that it wrote must be the same, byte for byte.
    #[serde(default)]
    pub twice: bool,
    /// Seconds of running, from the first line of results to the order to stop.
    pub seconds: f64,
    /// Seconds of real time after which the machine is given up.
    #[serde(default = "limit_s")]
    pub limit_s: u64,
    #[serde(default)]
    pub machine: Machine,
    /// The board's `[[streams]]`. Every camera has one of its own name, to which what is said here is added; so
    /// have streams of other names, which must say what their source is.
    #[serde(default)]
    pub streams: Vec<toml::Table>,
    /// Anything else of the board.
    #[serde(default)]
    pub board: toml::Table,
    /// A test program of the project, run with `--run` in place of ocelli.
    #[serde(default)]
    pub program: Option<String>,
    #[serde(default)]
    pub service: Service,
    /// What happens, in the order of time.
    #[serde(default)]
    pub steps: Vec<Step>,
    #[serde(default)]
    pub expect: Expect,
}

fn limit_s() -> u64 {
    600
}

/// What a scenario needs, and how exact it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// Virtual time: the same to the nanosecond, however loaded the host is.
    #[default]
    One,
    /// What needs GStreamer or systemd. With systemd, a machine has the host's own files and waits for them: its time
    /// is virtual, too, but it does not repeat to the nanosecond.
    Two,
    /// Virtual time, and a lot of it: only run when named.
    Soak,
}

/// The virtual machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Machine {
    pub memory_mb: u32,
    /// Groups of cameras that are plugged in and out together. Cameras are `a0`, `a1`... of the first group,
    /// `b0`... of the second.
    pub buses: Vec<Bus>,
    /// Whether it has the plugins of GStreamer that scenarios need.
    pub gstreamer: bool,
    /// Further kernel modules.
    pub modules: Vec<String>,
    /// Whether it has a hardware watchdog (i6300esb), which resets it.
    pub watchdog: bool,
    /// Whether it has a disk that outlasts a reset, mounted on `/disk`.
    pub disk: bool,
}

impl Default for Machine {
    fn default() -> Self {
        let bus = |cameras| Bus { cameras, ..Bus::default() };
        Self {
            memory_mb: 768,
            buses: vec![bus(1), bus(3)],
            gstreamer: false,
            modules: Vec::new(),
            watchdog: false,
            disk: false,
        }
    }
}

impl Scenario {
    /// Whether the machine sees the host's files: all that systemd needs is too much to carry.
    pub fn has_hosts_files(&self) -> bool {
        self.service.systemd
    }

    /// Kernel modules beside those of cameras, and of what the host is told through.
    pub fn modules(&self) -> Vec<&str> {
        let of = |there: bool, modules: &'static [&'static str]| if there { modules } else { &[] };
        // A machine sees the host's files through 9p, below a layer of its own.
        let shared = of(self.has_hosts_files(), &["virtio_pci", "9p", "9pnet_virtio", "overlay"]);
        let watchdog = of(self.machine.watchdog, &["i6300esb"]);
        let disk = of(self.machine.disk, &["virtio_pci", "virtio_blk", "ext4"]);
        let fixed = [shared, watchdog, disk].concat();
        fixed.into_iter().chain(self.machine.modules.iter().map(String::as_str)).collect()
    }
}

/// Cameras of the driver vivid, under one device of the system.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bus {
    pub cameras: usize,
    /// A camera for the web, or a grabber.
    pub input: Input,
    /// Planes in buffers of their own.
    pub multiplanar: bool,
    /// With an output whose pictures the cameras see.
    pub output: bool,
    /// Parameters of the kernel module, in place of those that follow from the rest.
    pub parameters: String,
    /// Cameras without a stream of their own.
    pub idle: bool,
    /// They have the size of their input, and no other.
    pub fixed_size: bool,
    /// Controls that are set when it appears, beside those of [`Bus::controls`].
    pub controls: BTreeMap<String, i64>,
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            cameras: 1,
            input: Input::Webcam,
            multiplanar: false,
            output: false,
            parameters: String::new(),
            idle: false,
            fixed_size: false,
            controls: BTreeMap::new(),
        }
    }
}

/// What vivid pretends to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    #[default]
    Webcam,
    Hdmi,
}

impl Bus {
    /// The driver of bus `index`: vivid, or a copy of it under another name.
    pub fn driver(index: usize) -> String {
        ["vivid", "vivib", "vivic", "vivie"][index].to_owned()
    }

    /// Parameters of its kernel module.
    pub fn parameters(&self) -> String {
        if !self.parameters.is_empty() {
            return self.parameters.clone();
        }
        let each = |value: &str| vec![value; self.cameras].join(",");
        format!(
            "n_devs={} node_types={} num_inputs={} input_types={} num_outputs={} output_types={} multiplanar={} \
             ccs_cap_mode={}",
            self.cameras,
            each(if self.output { "0x101" } else { "0x1" }),
            each("1"),
            each(if self.input == Input::Webcam { "0" } else { "3" }),
            each(if self.output { "1" } else { "0" }),
            each("1"),
            each(if self.multiplanar { "2" } else { "1" }),
            each(if self.fixed_size { "0" } else { "-1" }),
        )
    }

    /// Controls set at the start: frames are stamped at their start (the driver's default stamps the future),
    /// and no text is drawn into the picture, which takes the time of many frames.
    pub fn controls(&self) -> BTreeMap<String, i64> {
        let mut controls =
            BTreeMap::from([("timestamp_source".to_owned(), 1), ("osd_text_mode".to_owned(), 2)]);
        controls.extend(self.controls.clone());
        controls
    }
}

/// How the program is started and started again: the part of a service manager.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    /// The real one: systemd, with the project's unit; in suite two only.
    pub systemd: bool,
    /// Whether it is started again when it ends by itself.
    pub restart: bool,
    /// Whether the accelerator's profile is measured and kept before the first start.
    pub profile: bool,
    /// Further arguments of `ocelli run`.
    pub arguments: Vec<String>,
    /// Kill it (SIGABRT) when it gives no sign of life for this long. Of systemd without it: what the unit says.
    pub watchdog_s: Option<f64>,
    /// Read memory, files and threads this often.
    pub sample_s: Option<f64>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            systemd: false,
            restart: false,
            profile: true,
            arguments: Vec::new(),
            watchdog_s: None,
            sample_s: None,
        }
    }
}

/// Something that happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Seconds after the first line of results.
    pub at: f64,
    /// Its name in expectations.
    #[serde(default)]
    pub name: String,
    pub act: Act,
    /// Do it this often, this far apart.
    #[serde(default)]
    pub repeat: Option<Repeat>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    pub times: u32,
    pub every_s: f64,
}

/// What can be done to a machine, its cameras and the program.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Act {
    /// Sets controls of a camera: `{ camera = "a0", set = { disconnect = 1 } }`.
    Control { camera: String, set: BTreeMap<String, i64> },
    /// Takes the driver off a bus; all its cameras are gone.
    Unbind(char),
    /// Gives it back.
    Bind(char),
    /// Exchanges the names of two cameras, as a plug in another socket does.
    Swap([String; 2]),
    /// Sends the program a signal: `"STOP"`, `"CONT"`, `"KILL"`...
    Signal(String),
    /// Stops a thread of the program as the kernel would: nothing in it runs any more.
    StopThread(String),
    /// Lets it run again.
    ResumeThread(String),
    /// The driver lies to a camera's thread.
    Lie { thread: String, lie: Lie, seconds: f64 },
    /// Moves the wall clock.
    ClockStep { seconds: i64 },
    /// Fills the file system below a folder but for some room.
    Fill { folder: String, leave_kb: u64 },
    /// Frees it.
    Free { folder: String },
    /// Takes memory until this much is left.
    Hog { leave_mb: u64 },
    /// Gives it back.
    Release {},
    /// Connects to a Unix socket, and reads nothing.
    Wedge(String),
    /// Hangs up.
    Unwedge(String),
    /// Takes the processor from everybody, as a storm of interrupts does.
    Burn { ms: u64 },
    /// The service manager, and with it everything, stands still for good.
    CrashManager {},
    /// Runs a program of the machine, which must succeed; `"a0"` in its arguments is the camera's device.
    Run(Vec<String>),
}

/// Where a camera's name by path is found, as udev makes it.
pub fn by_path(bus: usize, camera: usize) -> String {
    format!("/dev/v4l/by-path/platform-{}-{camera:03}-video-index0", Bus::driver(bus))
}

impl Scenario {
    /// Reads a file and checks what can be checked.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        if self.machine.buses.len() > 4 {
            return Err("there are four copies of the driver, so at most four buses".to_owned());
        }
        if self.streams.iter().any(|stream| stream.get("id").and_then(toml::Value::as_str).is_none()) {
            return Err("every stream needs an id".to_owned());
        }
        let ids = self.ids();
        if ids.is_empty() {
            return Err("there is no camera and no stream".to_owned());
        }
        let expect = &self.expect;
        let after = expect.noticed.iter().map(|noticed| &noticed.after);
        for after in after.chain(expect.back.iter().map(|back| &back.after)) {
            if !after.is_empty() && !self.steps.iter().any(|step| step.name == *after) {
                return Err(format!("no step is named {after:?}"));
            }
        }
        if let Some(back) = expect.back.iter().find(|back| !ids.contains(&back.stream)) {
            return Err(format!("no stream is {:?}", back.stream));
        }
        if let Some(stream) = expect.streams.keys().find(|stream| !ids.contains(stream)) {
            return Err(format!("no stream is {stream:?}"));
        }
        if self.service.systemd && self.suite != Suite::Two {
            return Err("systemd needs suite two".to_owned());
        }
        if !self.steps.is_sorted_by(|one, next| one.at <= next.at) {
            return Err("the steps are not in the order of time".to_owned());
        }
        Ok(())
    }

    /// Bus and number of the camera `a0`, `b1`...
    pub fn camera(&self, name: &str) -> Option<(usize, usize)> {
        let mut letters = name.chars();
        let bus = letters.next().filter(char::is_ascii_lowercase).map(|bus| bus as usize - 'a' as usize)?;
        let camera: usize = letters.as_str().parse().ok()?;
        (camera < self.machine.buses.get(bus)?.cameras).then_some((bus, camera))
    }

    /// Names of all streams: cameras first.
    pub fn ids(&self) -> Vec<String> {
        let buses = self.machine.buses.iter().zip('a'..).filter(|(bus, _)| !bus.idle);
        let cameras =
            buses.flat_map(|(bus, letter)| (0..bus.cameras).map(move |camera| format!("{letter}{camera}")));
        let mut ids: Vec<_> = cameras.collect();
        for stream in &self.streams {
            if !ids.iter().any(|id| id == name(stream)) {
                ids.push(name(stream).to_owned());
            }
        }
        ids
    }

    /// The board file: four cameras at most share an accelerator that needs 3 ms for one frame and 6 ms for four.
    pub fn board_text(&self, manifest: &str) -> Result<String, String> {
        let mut board: toml::Table = toml::from_str(&format!(
            "config_version = 1\n[accelerator]\nbackend = \"simulated\"\nintercept_ms = 2\nslope_ms = 1\n\
             max_batch = 4\n[models.person]\nmanifest = {manifest:?}\n"
        ))
        .map_err(|error| error.to_string())?;
        merge(&mut board, &self.board);
        let defaults: toml::Table = toml::from_str(
            "fps = 30\nsize = [640, 360]\nformat = \"NV12\"\nlatency_bound_ms = 80\ncriticality = \"critical\"\n\
             model = \"person\"\n",
        )
        .map_err(|error| error.to_string())?;
        let mut streams = Vec::new();
        for id in self.ids() {
            let mut stream = defaults.clone();
            stream.insert("id".to_owned(), id.clone().into());
            let of_its_own = |said: &toml::Table| {
                name(said) == id && said.get("source").is_some_and(|source| source.get("type").is_some())
            };
            if self.camera(&id).is_some() && !self.streams.iter().any(of_its_own) {
                let source = [("type", "v4l2"), ("device", id.as_str())];
                let source: toml::Table =
                    source.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
                stream.insert("source".to_owned(), source.into());
            }
            self.streams.iter().filter(|said| name(said) == id).for_each(|said| merge(&mut stream, said));
            if let Some(toml::Value::Table(source)) = stream.get_mut("source")
                && let Some(toml::Value::String(device)) = source.get_mut("device")
                && let Some((bus, camera)) = self.camera(device)
            {
                *device = by_path(bus, camera);
            }
            streams.push(toml::Value::Table(stream));
        }
        board.insert("streams".to_owned(), streams.into());
        toml::to_string(&board).map_err(|error| error.to_string())
    }
}

fn name(stream: &toml::Table) -> &str {
    stream.get("id").and_then(toml::Value::as_str).unwrap_or_default()
}

fn merge(base: &mut toml::Table, more: &toml::Table) {
    for (key, value) in more {
        match (base.get_mut(key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(more)) => merge(base, more),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}
