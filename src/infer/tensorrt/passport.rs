//! What is known about a plan: a sidecar written when it was built. A plan tells nothing about itself without its GPU,
//! and little with it.

use super::signature::Tensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// Version of the file's form.
const VERSION: u32 = 2;
/// The device of a plan that was built for devices elsewhere.
pub(super) const ELSEWHERE: &str = "not here";
/// Device memory that layers may use beside weights and activations, where nobody asks for another limit.
pub const WORKSPACE_MIB: u64 = 256;

/// All that a plan depends on. Two plans with one key are interchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The model's name on the board.
    pub model: String,
    /// SHA-256 of the network's file.
    pub network: String,
    /// What the network computes with, as its manifest says.
    pub precision: String,
    /// What built it, and its version: "TensorRT 10.3.0".
    pub tensorrt: String,
    /// The device that it was built on; "not here" where it was built for devices elsewhere.
    pub device: String,
    /// Compute capabilities that it runs on, major * 10 + minor.
    pub capabilities: Vec<i32>,
    /// The DLA that it was built for.
    pub dla_core: Option<u8>,
    /// Batch sizes: from 1 to this, best at this.
    pub max_batch: u16,
    /// Device memory that its layers may use beside weights and activations.
    pub workspace_mib: u64,
    /// The builder's optimization level; none is its own choice.
    pub level: Option<u8>,
    /// Optimization profiles: one, or before TensorRT 10 one for every batch size of every context.
    pub profiles: u32,
}

/// What the model answered to the golden pictures on the device that its plan was built on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Per picture, per output in the manifest's order: values at equal distances.
    pub answers: Vec<Vec<Vec<f32>>>,
}

/// A plan's sidecar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passport {
    v: u32,
    /// What the plan depends on.
    pub key: Key,
    /// SHA-256 of the plan.
    pub sha256: String,
    /// Its bytes.
    pub bytes: u64,
    /// What goes in and comes out.
    pub tensors: Vec<Tensor>,
    /// Layers of the network before it was built.
    pub layers: u32,
    /// Seconds that building took.
    pub built_in_s: f64,
    /// The program that built it.
    pub built_by: String,
    /// What it answered where it was built; none where its device is elsewhere.
    pub golden: Option<Golden>,
}

impl Key {
    /// The plan's file name, without its folder: the model's name and a digest of the key.
    #[must_use]
    pub fn file(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let digest = sha256(&text);
        format!("{}-{}.plan", self.model, &digest[..12])
    }

    /// Whether a plan of this key does what one of `here` would: it is the same, or was built elsewhere for what is here.
    fn serves(&self, here: &Self) -> bool {
        let elsewhere = self.device == ELSEWHERE
            && here.capabilities.iter().all(|capability| self.capabilities.contains(capability));
        let (device, capabilities) = (here.device.clone(), here.capabilities.clone());
        self == here || (elsewhere && Self { device, capabilities, ..self.clone() } == *here)
    }

    /// What differs from the key that is needed `here`, in words; empty when nothing does.
    #[must_use]
    pub fn differences(&self, here: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, there: String, here: String| {
            if there != here {
                found.push(format!("{what} {there}, here {here}"));
            }
        };
        let dla = |key: &Self| key.dla_core.map_or("none".to_owned(), |core| core.to_string());
        let level = |key: &Self| key.level.map_or("TensorRT's choice".to_owned(), |level| level.to_string());
        compare("the model", self.model.clone(), here.model.clone());
        compare("the network's SHA-256", self.network.clone(), here.network.clone());
        compare("the precision", self.precision.clone(), here.precision.clone());
        compare("built by", self.tensorrt.clone(), here.tensorrt.clone());
        compare("built on", self.device.clone(), here.device.clone());
        compare("for compute capability", capabilities(&self.capabilities), capabilities(&here.capabilities));
        compare("for DLA", dla(self), dla(here));
        compare("max_batch", self.max_batch.to_string(), here.max_batch.to_string());
        compare("workspace (MiB)", self.workspace_mib.to_string(), here.workspace_mib.to_string());
        compare("optimization level", level(self), level(here));
        compare("optimization profiles", self.profiles.to_string(), here.profiles.to_string());
        found
    }
}

/// "8.7, 12.0" of 87 and 120.
#[must_use]
pub fn capabilities(of: &[i32]) -> String {
    let texts: Vec<_> =
        of.iter().map(|capability| format!("{}.{}", capability / 10, capability % 10)).collect();
    texts.join(", ")
}

/// Lower-case hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl Passport {
    /// The sidecar of `plan`, just built.
    #[must_use]
    pub fn new(
        key: Key,
        plan: &[u8],
        tensors: Vec<Tensor>,
        layers: u32,
        built_in_s: f64,
        built_by: String,
    ) -> Self {
        let (sha256, bytes) = (sha256(plan), plan.len() as u64);
        Self { v: VERSION, key, sha256, bytes, tensors, layers, built_in_s, built_by, golden: None }
    }

    /// Where the sidecar of the plan at `plan` lies.
    #[must_use]
    pub fn path(plan: &Path) -> PathBuf {
        plan.with_extension("json")
    }

    /// Reads the sidecar of the plan at `plan`.
    ///
    /// # Errors
    /// Why it can't be read or is none, with its name.
    pub fn load(plan: &Path) -> Result<Self, String> {
        let path = Self::path(plan);
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let passport: Self = serde_json::from_str(&text)
            .map_err(|error| format!("{}: not a passport of this version: {error}", path.display()))?;
        if passport.v != VERSION {
            return Err(format!(
                "{}: a passport of version {}, this is {VERSION}",
                path.display(),
                passport.v
            ));
        }
        Ok(passport)
    }

    /// Reads the plan that this is the sidecar of, and holds it to its sum.
    ///
    /// # Errors
    /// It can't be read, or is not the one that was built.
    pub fn plan(&self, path: &Path) -> Result<Vec<u8>, String> {
        let plan = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let found = sha256(&plan);
        if found != self.sha256 {
            return Err(format!(
                "{}: not the plan of its passport: {} bytes with SHA-256 {found}, the passport says {} bytes with \
                 {}; build it again",
                path.display(),
                plan.len(),
                self.bytes,
                self.sha256
            ));
        }
        Ok(plan)
    }

    /// Keeps a plan and its sidecar, the plan first: one without a sidecar is never used.
    ///
    /// # Errors
    /// What the system refused, with the file's name.
    pub fn keep(&self, path: &Path, plan: &[u8]) -> Result<(), String> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        text.push('\n');
        write(path, plan)?;
        write(&Self::path(path), text.as_bytes())
    }
}

/// Writes a file whole or not at all, and makes its folder.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let unfinished = path.with_extension("unfinished");
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&unfinished, bytes)?;
        fs::File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|error| format!("{}: {error}", path.display()))
}

/// The plan for `key` in `folder`, with its sidecar; else one that was built elsewhere for the same.
///
/// # Errors
/// There is none; with those of the same model that there are, and what is different about them.
pub fn find(folder: &Path, key: &Key) -> Result<(PathBuf, Passport), String> {
    let path = folder.join(key.file());
    let why = match Passport::load(&path) {
        Ok(passport) if passport.key == *key => return Ok((path, passport)),
        Ok(passport) => format!("{}: {}", path.display(), passport.key.differences(key).join("; ")),
        Err(why) if path.exists() => why,
        Err(_) => format!("there is no plan for it in {}", folder.display()),
    };
    let known = || plans(folder).into_iter().filter_map(|path| Some((Passport::load(&path).ok()?, path)));
    if let Some((passport, path)) = known().find(|(passport, _)| passport.key.serves(key)) {
        return Ok((path, passport));
    }
    let others: Vec<_> = known()
        .filter(|(passport, other)| passport.key.model == key.model && *other != path)
        .map(|(passport, path)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("{name} is not for it: {}", passport.key.differences(key).join("; "))
        })
        .collect();
    Err([vec![why], others].concat().join("\n    "))
}

/// The plans in a folder, by name.
#[must_use]
pub fn plans(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut plans: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "plan")).collect();
    plans.sort();
    plans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            model: "person".into(),
            network: "c6e9".into(),
            precision: "fp16".into(),
            tensorrt: "TensorRT 10.3.0".into(),
            device: "Orin".into(),
            capabilities: vec![87],
            dla_core: None,
            max_batch: 8,
            workspace_mib: 256,
            level: None,
            profiles: 1,
        }
    }

    fn passport(plan: &[u8]) -> Passport {
        let tensor =
            Tensor { name: "in".into(), input: true, element: "f32".into(), shape: vec![-1, 3, 4, 4] };
        Passport::new(key(), plan, vec![tensor], 5, 1.5, "ocelli".into())
    }

    #[test]
    fn a_plan_is_found_by_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(key().file());
        assert!(find(folder.path(), &key()).unwrap_err().contains("no plan"), "an empty folder");
        let kept = passport(b"plan");
        kept.keep(&path, b"plan").unwrap();
        assert_eq!(find(folder.path(), &key()).unwrap(), (path.clone(), kept.clone()));
        assert_eq!(kept.plan(&path).unwrap(), b"plan");

        let later = Key { tensorrt: "TensorRT 10.13.0".into(), max_batch: 4, ..key() };
        let why = find(folder.path(), &later).unwrap_err();
        for part in ["built by TensorRT 10.3.0, here TensorRT 10.13.0", "max_batch 8, here 4"] {
            assert!(why.contains(part), "{why}");
        }
        let other = Key { model: "car".into(), ..key() };
        assert!(
            !find(folder.path(), &other).unwrap_err().contains("person"),
            "another model's plans don't matter"
        );
        // A file that has the right name and another key.
        std::fs::copy(Passport::path(&path), folder.path().join(later.file()).with_extension("json"))
            .unwrap();
        assert!(find(folder.path(), &later).unwrap_err().contains("max_batch 8, here 4"));
    }

    #[test]
    fn a_plan_from_elsewhere_serves_the_devices_that_it_was_built_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = passport(b"plan");
        (kept.key.device, kept.key.capabilities) = (ELSEWHERE.into(), vec![86, 120]);
        let path = folder.path().join(kept.key.file());
        kept.keep(&path, b"plan").unwrap();
        let here = |capability| Key { capabilities: vec![capability], ..key() };
        assert_eq!(find(folder.path(), &here(120)).unwrap().0, path);
        assert!(
            find(folder.path(), &here(87))
                .unwrap_err()
                .contains("for compute capability 8.6, 12.0, here 8.7")
        );
        assert!(find(folder.path(), &Key { max_batch: 4, ..here(86) }).is_err());
        // What was built here goes first; what was built on another device does not serve.
        let own = Passport { key: here(86), ..kept.clone() };
        own.keep(&folder.path().join(own.key.file()), b"plan").unwrap();
        assert_eq!(find(folder.path(), &here(86)).unwrap().1, own);
        assert!(find(folder.path(), &Key { device: "Xavier".into(), ..here(87) }).is_err());
    }

    #[test]
    fn what_is_broken_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("person.plan");
        let kept = passport(b"plan");
        assert!(kept.plan(&path).unwrap_err().contains("person.plan"));
        kept.keep(&path, b"plan").unwrap();
        std::fs::write(&path, b"pla").unwrap();
        let why = kept.plan(&path).unwrap_err();
        assert!(why.contains("3 bytes") && why.contains("4 bytes"), "{why}");
        let sidecar = Passport::path(&path);
        let text = std::fs::read_to_string(&sidecar).unwrap();
        for wrong in
            ["", "{", "[]", &text.replace("\"v\": 2", "\"v\": 1"), &text.replace("\"key\"", "\"kay\"")]
        {
            std::fs::write(&sidecar, wrong).unwrap();
            let why = Passport::load(&path).unwrap_err();
            assert!(why.contains("person.json") && why.contains("passport"), "{why}");
        }
    }
}
