//! The virtual machine, seen from outside: what is in it, and QEMU's command line.

use crate::agent::PLUGINS;
use crate::archive::{self, Archive};
use crate::scenario::{Bus, Scenario};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What machines are made of.
pub struct Parts {
    /// Folder with `vmlinux` and `lib/modules`.
    kernel: PathBuf,
    /// The project's folder.
    root: PathBuf,
    /// Programs by where they are in a machine, without what only debuggers need.
    programs: BTreeMap<String, Vec<u8>>,
    /// Libraries that they need.
    libraries: BTreeSet<String>,
}

/// End of a signed kernel module.
const SIGNED: &[u8] = b"~Module signature appended~\n";

impl Parts {
    /// Reads all programs, which may be built anew meanwhile: this one, the program under test and test programs by
    /// name. `folder` is for what is made on the way.
    pub fn new(
        root: &Path,
        kernel: PathBuf,
        ocelli: &Path,
        tests: &[(&str, &Path)],
        folder: &Path,
    ) -> Result<Self, String> {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let own = Path::new("/proc/self/exe");
        let v4l2_ctl = found("v4l2-ctl")?;
        let fixed =
            [("usr/local/bin/rig", own), ("usr/local/bin/ocelli", ocelli), ("usr/bin/v4l2-ctl", &v4l2_ctl)];
        let tests = tests.iter().map(|(name, path)| (format!("usr/local/bin/{name}"), *path));
        let all = fixed.into_iter().map(|(name, path)| (name.to_owned(), path)).chain(tests);
        let mut parts =
            Self { kernel, root: root.to_owned(), programs: BTreeMap::new(), libraries: BTreeSet::new() };
        for (name, path) in all {
            parts.libraries.extend(needed(path)?);
            parts.programs.insert(name, slim(path, &folder.join("slim"))?);
        }
        Ok(parts)
    }

    /// Boots a machine for the scenario, lets it run to its end, and fetches what was written to `folder`.
    pub fn run(&self, scenario: &Scenario, folder: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(failed)?;
        }
        fs::create_dir_all(folder).map_err(failed)?;
        self.initial(scenario, &folder.join("initrd"))?;
        let ended = self.boot(scenario, folder);
        for large in ["initrd", "disk"] {
            let _ = fs::remove_file(folder.join(large));
        }
        ended?;
        let home = fs::read(folder.join("home")).map_err(failed)?;
        for (name, bytes) in archive::files(&home)? {
            fs::write(folder.join(name), bytes).map_err(failed)?;
        }
        let _ = fs::remove_file(folder.join("home"));
        Ok(())
    }

    /// Writes the machine's first file system: kernel modules, programs with their libraries, the board.
    fn initial(&self, scenario: &Scenario, path: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut archive = Archive::new(BufWriter::new(File::create(path).map_err(failed)?));
        for (name, program) in &self.programs {
            archive.file(name, 0o755, program).map_err(failed)?;
        }
        for library in &self.libraries {
            archive.copy(library.trim_start_matches('/'), Path::new(library)).map_err(failed)?;
        }
        if scenario.machine.gstreamer {
            plugins(&self.libraries, &mut archive)?;
        }
        self.modules(scenario, &mut archive)?;
        let models = self.root.join("models");
        for name in ["person-ssdlite.int8.toml", "person-ssdlite.int8.onnx", "base/person-ssdlite.toml"] {
            archive.copy(&format!("models/{name}"), &models.join(name)).map_err(failed)?;
        }
        let system = self.root.join("boards/system");
        for name in ["ocelli@.service", "ocelli.conf"] {
            archive.copy(&format!("system/{name}"), &system.join(name)).map_err(failed)?;
        }
        let board = scenario.board_text("/models/person-ssdlite.int8.toml")?;
        archive.file("board/test.toml", 0o644, board.as_bytes()).map_err(failed)?;
        let plan = serde_json::to_vec(scenario).map_err(|error| error.to_string())?;
        archive.file("plan.json", 0o644, &plan).map_err(failed)?;
        archive.folder("state").map_err(failed)?;
        archive.finish().map(drop).map_err(failed)
    }

    fn modules<W: std::io::Write>(
        &self,
        scenario: &Scenario,
        archive: &mut Archive<W>,
    ) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("kernel modules: {error}");
        let mut there = BTreeSet::new();
        let fixed = ["vivid", "virtio_pci", "virtio_console"];
        for module in fixed.into_iter().chain(scenario.modules()) {
            let files = self.needed_modules(module)?;
            let names: Vec<_> = files.iter().map(|file| stem(file)).collect();
            for (file, name) in files.iter().zip(&names) {
                if there.insert(name.clone()) {
                    archive.copy(&format!("modules/{name}.ko"), file).map_err(failed)?;
                }
            }
            archive
                .file(&format!("modules/{module}.list"), 0o644, names.join("\n").as_bytes())
                .map_err(failed)?;
            if module == "vivid" {
                self.copies(&files, &names, scenario.machine.buses.len(), archive)?;
            }
        }
        Ok(())
    }

    /// Copies of the driver under other names, so that cameras can go away without all others: all cameras of
    /// one driver are one device of the system.
    fn copies<W: std::io::Write>(
        &self,
        files: &[PathBuf],
        names: &[String],
        buses: usize,
        archive: &mut Archive<W>,
    ) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("copies of vivid: {error}");
        let last = files.last().ok_or("vivid has no module")?;
        let driver = unsigned(fs::read(last).map_err(failed)?);
        for bus in 1..buses {
            let name = Bus::driver(bus);
            let mut list = names.to_vec();
            list.pop();
            list.push(name.clone());
            archive.file(&format!("modules/{name}.ko"), 0o644, &renamed(&driver, &name)).map_err(failed)?;
            archive
                .file(&format!("modules/{name}.list"), 0o644, list.join("\n").as_bytes())
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Files of a kernel module and, before it, of what it needs.
    fn needed_modules(&self, module: &str) -> Result<Vec<PathBuf>, String> {
        let lib = self.kernel.join("lib/modules");
        let mut versions =
            fs::read_dir(&lib).map_err(|error| format!("{}: {error}", lib.display()))?.flatten();
        let version = versions.next().ok_or_else(|| format!("{} is empty", lib.display()))?.file_name();
        let output = Command::new(found("modprobe")?)
            .arg("-d")
            .arg(&self.kernel)
            .arg("-S")
            .arg(&version)
            .args(["--show-depends", module])
            .output()
            .map_err(|error| format!("modprobe: {error}"))?;
        if !output.status.success() {
            return Err(format!("modprobe {module}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let files = text.lines().filter_map(|line| line.strip_prefix("insmod "));
        Ok(files.map(|file| PathBuf::from(file.trim())).collect())
    }

    fn boot(&self, scenario: &Scenario, folder: &Path) -> Result<(), String> {
        let mut qemu = Command::new(found("qemu-system-x86_64")?);
        // Everything from one thread, and time from the count of its instructions. With nothing to do it jumps to the
        // next instant; but not over the time that a disk or the host's files take. Nothing outside the processor may
        // run before the end: what QEMU does beside it comes when the host lets it.
        let with_host = scenario.has_hosts_files();
        let waits = with_host || scenario.machine.disk;
        let icount = format!("shift=1,sleep={}", if waits { "on" } else { "off" });
        qemu.args(["-accel", "tcg,thread=single", "-icount", &icount, "-smp", "1", "-seed", "1"]);
        // Later than systemd was built: a clock that is before it is set to that, at every start anew.
        qemu.args(["-rtc", "base=2032-01-01T00:00:00,clock=vm"]);
        if with_host {
            qemu.args(["-fsdev", "local,id=host,path=/,readonly=on,security_model=none,multidevs=remap"]);
            qemu.args(["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]);
        }
        qemu.args(["-cpu", "max,-rdrand,-rdseed", "-m", &scenario.machine.memory_mb.to_string()]);
        qemu.args(["-nographic", "-nodefaults"]);
        // One that panics would start again for ever; a watchdog's reset is meant to.
        let panic = if scenario.machine.watchdog {
            qemu.args(["-device", "i6300esb", "-action", "watchdog=reset"]);
            "panic=0"
        } else {
            qemu.arg("-no-reboot");
            "panic=-1"
        };
        if scenario.machine.disk {
            let disk = folder.join("disk");
            formatted(&disk)?;
            qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio", disk.display()));
        }
        qemu.arg("-chardev").arg(format!("file,id=console,path={}", folder.join("console").display()));
        qemu.args(["-serial", "chardev:console", "-device", "virtio-serial-pci"]);
        qemu.arg("-chardev").arg(format!("file,id=home,path={}", folder.join("home").display()));
        qemu.args(["-device", "virtserialport,chardev=home,name=out"]);
        qemu.arg("-kernel").arg(self.kernel.join("vmlinux")).arg("-initrd").arg(folder.join("initrd"));
        let arguments = "console=ttyS0 quiet rdinit=/usr/local/bin/rig mitigations=off nokaslr norandmaps preempt=full \
            cryptomgr.notests tsc=reliable no_timer_check initcall_blacklist=init_kprobe_trace,load_system_certificate_list";
        qemu.arg("-append").arg(format!("{arguments} {panic}"));
        let errors = File::create(folder.join("qemu")).map_err(|error| format!("qemu: {error}"))?;
        qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let mut machine = qemu.spawn().map_err(|error| format!("qemu-system-x86_64: {error}"))?;
        let until = Instant::now() + Duration::from_secs(scenario.limit_s);
        loop {
            if let Some(ended) = machine.try_wait().map_err(|error| format!("qemu: {error}"))? {
                return if ended.success() { Ok(()) } else { Err(said(folder, &format!("qemu: {ended}"))) };
            }
            if Instant::now() > until {
                let _ = machine.kill();
                let _ = machine.wait();
                return Err(said(folder, &format!("the machine was not done in {} s", scenario.limit_s)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// An empty disk.
fn formatted(path: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    File::create(path).and_then(|file| file.set_len(256 << 20)).map_err(failed)?;
    let made =
        Command::new(found("mke2fs")?).args(["-q", "-t", "ext4", "-F"]).arg(path).output().map_err(failed)?;
    let said = || format!("mke2fs: {}", String::from_utf8_lossy(&made.stderr).trim());
    made.status.success().then_some(()).ok_or_else(said)
}

/// What went wrong, and the last that QEMU and the machine said.
fn said(folder: &Path, what: &str) -> String {
    let last = |name| {
        let text = fs::read(folder.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("").to_owned()
    };
    format!("{what} ({} {})", last("qemu"), last("console"))
}

/// The few plugins of GStreamer that scenarios need, with libraries that are not `there` yet.
fn plugins<W: std::io::Write>(there: &BTreeSet<String>, archive: &mut Archive<W>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("GStreamer's plugins: {error}");
    let folder = Command::new("pkg-config")
        .args(["--variable=pluginsdir", "gstreamer-1.0"])
        .output()
        .map_err(|error| format!("pkg-config: {error}"))?;
    let folder = PathBuf::from(String::from_utf8_lossy(&folder.stdout).trim());
    let mut libraries = BTreeSet::new();
    // GStreamer up to 1.20 has two for what is one since.
    for name in ["app", "coreelements", "video4linux2", "videoconvertscale", "videoconvert", "videoscale"] {
        let file = format!("libgst{name}.so");
        let plugin = folder.join(&file);
        if plugin.exists() {
            libraries.extend(needed(&plugin)?);
            archive.copy(&format!("{}/{file}", &PLUGINS[1..]), &plugin).map_err(failed)?;
        }
    }
    for library in libraries.difference(there) {
        archive.copy(library.trim_start_matches('/'), Path::new(library)).map_err(failed)?;
    }
    Ok(())
}

/// A program on the path, or where only administrators look.
pub fn found(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    let mut places = folders.map(|folder| Path::new(folder).join(program));
    places.find(|place| place.is_file()).ok_or_else(|| format!("{program} is not installed"))
}

/// Libraries that a program needs, and the loader.
fn needed(program: &Path) -> Result<Vec<String>, String> {
    let output = Command::new("ldd").arg(program).output().map_err(|error| format!("ldd: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
        return Err(format!("{}: {}", program.display(), missing.trim()));
    }
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(str::to_owned).collect())
}

/// A program without what only debuggers need: a machine that starts has to unpack every byte.
fn slim(program: &Path, slim: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", program.display());
    fs::copy(program, slim).map_err(failed)?;
    let stripped = Command::new("strip").arg("-s").arg(slim).output().map_err(failed)?;
    if !stripped.status.success() {
        return Err(format!("strip: {}", String::from_utf8_lossy(&stripped.stderr).trim()));
    }
    let bytes = fs::read(slim).map_err(failed);
    let _ = fs::remove_file(slim);
    bytes
}

fn stem(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A kernel module without its signature, which a change would make wrong.
fn unsigned(mut module: Vec<u8>) -> Vec<u8> {
    if let Some(signed) = module.strip_suffix(SIGNED)
        && let Some((rest, length)) = signed.split_last_chunk::<4>()
    {
        let length = u32::from_be_bytes(*length) as usize;
        module.truncate(rest.len().saturating_sub(8 + length));
    }
    module
}

/// The driver vivid under another name of the same length.
fn renamed(driver: &[u8], name: &str) -> Vec<u8> {
    let mut copy = driver.to_vec();
    let mut at = 0;
    while let Some(found) = copy[at..].windows(5).position(|word| word == b"vivid") {
        copy[at + found..at + found + 5].copy_from_slice(name.as_bytes());
        at += found + 5;
    }
    copy
}
