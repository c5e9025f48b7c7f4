//! The GPU kernels' shared arithmetic (cpp/kernels/preprocess.h), built by the host's compiler, against the CPU path:
//! the same bits.

use super::*;
use ocelli::model::Placement;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The header's number of a format.
fn number(format: PixelFormat) -> u32 {
    let names = [
        "NV12", "I420", "YUY2", "UYVY", "RGB", "BGR", "GRAY8", "RGGB8", "GRBG8", "GBRG8", "BGGR8", "RGGB10",
        "GRBG10", "GBRG10", "BGGR10",
    ];
    names.iter().position(|name| *name == format.as_str()).expect("the kernels know every format") as u32
}

/// The program that runs the kernels' lines, under AddressSanitizer: a read beside a frame ends it.
struct Host {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
    /// Where the program lies.
    _folder: tempfile::TempDir,
}

impl Host {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("host");
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        let status = Command::new(&compiler)
            .args(["-std=c++17", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"])
            .args(["-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-o"])
            .arg(&program)
            .arg(Path::new(ROOT).join("tests/preprocess/host.cpp"))
            .status()
            .unwrap_or_else(|why| {
                panic!("{compiler} can't be run ({why}); scripts/setup installs a compiler")
            });
        assert!(status.success(), "{compiler} refuses the kernels' lines");
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, to, from, _folder: folder }
    }

    /// The rows of a batch, as the kernels make them.
    fn run(&mut self, input: &Input, frames: &[(ImageLayout, Vec<u8>)]) -> Vec<Vec<u8>> {
        let mut batch = Vec::new();
        let mut put = |numbers: &[u32]| batch.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        let channels = match input.channels {
            Channels::Rgb => 0,
            Channels::Bgr => 1,
            Channels::Gray => 2,
        };
        put(&[input.element as u32, frames.len() as u32, input.width, input.height, channels]);
        put(&[u32::from(input.layout == TensorLayout::Nhwc), u32::from(input.fill)]);
        put(&input.scale.map(f32::to_bits));
        put(&input.offset.map(f32::to_bits));
        for (layout, bytes) in frames {
            let mut put =
                |numbers: &[u32]| batch.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            for plane in layout.planes {
                put(&[plane.offset as u32, 0]);
            }
            put(&layout.planes.map(|plane| plane.stride as u32));
            let color = layout.color;
            let bits = u32::from(color.matrix == Matrix::Bt709) + 2 * u32::from(color.range == Range::Full);
            put(&[layout.width, layout.height, number(layout.format), bits]);
            let Placement { x, y, width, height } = input.placement(layout.width, layout.height);
            put(&[x, y, width, height, 0, bytes.len() as u32]);
            batch.extend(bytes);
        }
        self.to.write_all(&batch).unwrap();
        self.to.flush().unwrap();
        let size = match input.element {
            Element::F32 => 4,
            Element::F16 => 2,
            Element::U8 | Element::I8 => 1,
        };
        let length = (input.width * input.height) as usize * input.channels.count() * size;
        let mut rows = vec![vec![0; length]; frames.len()];
        for row in &mut rows {
            self.from.read_exact(row).expect("the kernels' lines ran to their end");
        }
        rows
    }

    /// Nothing more comes, and nothing was found.
    fn stop(self) {
        let Self { mut child, to, .. } = self;
        drop(to);
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn kernels_equal_the_reference_bit_for_bit() {
    let mut host = Host::start();
    let mut checked = 0;
    for (case, expected) in cases("exact") {
        let frame = within(case.bits, noise(case.bytes, case.seed));
        let rows = host.run(&case.input(), &[(case.frame_layout(), frame)]);
        assert!(rows == [expected], "{case:?}");
        checked += 1;
    }
    assert!(checked > 10, "{checked} cases");
    host.stop();
}

#[test]
fn kernels_equal_the_cpu_path_bit_for_bit() {
    let batch = (any_input(70), proptest::collection::vec(any_frame(120), 1..4));
    let host = std::cell::RefCell::new(Host::start());
    proptest!(ProptestConfig::with_cases(400), |((input, frames) in batch)| {
        let rows = host.borrow_mut().run(&input, &frames);
        for (index, (row, (layout, frame))) in rows.iter().zip(&frames).enumerate() {
            let expected = run(Preprocessor::new(&input), &input, layout, frame);
            let first = row.iter().zip(&expected).position(|(a, b)| a != b);
            prop_assert!(first.is_none(), "byte {first:?} of frame {index} as {:?}", input.element);
        }
    });
    host.into_inner().stop();
}

/// The largest frames and tensors that the header allows: no position overflows.
#[test]
fn kernels_reach_their_largest_edges() {
    let mut host = Host::start();
    for (width, height) in [(65_535, 1), (1, 65_535)] {
        let layout = ImageLayout::packed(PixelFormat::I420, width, height);
        let frame = noise(layout.extent().unwrap(), width);
        for (across, down) in [(8192, 1), (1, 8192)] {
            let input = plain(across, down, TensorLayout::Nchw, Fit::Stretch);
            let rows = host.run(&input, &[(layout, frame.clone())]);
            assert!(
                rows == [run(Preprocessor::new(&input), &input, &layout, &frame)],
                "{width}x{height} to {across}x{down}"
            );
        }
    }
    host.stop();
}

#[test]
fn cubins_are_of_these_sources() {
    let kernels = Path::new(ROOT).join("cpp/kernels");
    let sha256 = |path: &Path| {
        let bytes = std::fs::read(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let manifest = std::fs::read(kernels.join("cubin/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let sources = manifest["sources"].as_object().unwrap();
    for (file, sum) in sources {
        assert_eq!(sha256(&kernels.join(file)), *sum, "{file} has changed: run scripts/kernels");
    }
    assert_eq!(sources.len(), 2);
    let cubins = manifest["cubins"].as_array().unwrap();
    for cubin in cubins {
        let file = cubin["file"].as_str().unwrap();
        assert_eq!(sha256(&kernels.join("cubin").join(file)), cubin["sha256"], "{file}: run scripts/kernels");
    }
    // Each with the major version of the oldest CUDA whose drivers load it: JetPack 5's is 11.4, Thor's first is 13.0.
    let built = |cubin: &serde_json::Value| {
        let nvrtc = cubin["nvrtc"].as_str().unwrap();
        let major: u64 = nvrtc.split('.').next().unwrap().parse().unwrap();
        (cubin["architecture"].as_u64().unwrap(), major)
    };
    let built: Vec<_> = cubins.iter().map(built).collect();
    assert_eq!(
        built,
        [(72, 11), (80, 11), (86, 11), (87, 11), (89, 11), (90, 11), (120, 12), (110, 13)],
        "architecture, and CUDA that its drivers need"
    );
}
