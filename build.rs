//! Records which commit was built. With the feature `tensorrt`, compiles the border to TensorRT.

use std::process::Command;

fn main() {
    let describe = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = describe
        .ok()
        .filter(|out| out.status.success())
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .map_or_else(|| "no git".to_owned(), |text| text.trim().to_owned());
    println!("cargo::rustc-env=OCELLI_COMMIT={commit}");
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/index");
    #[cfg(feature = "tensorrt")]
    tensorrt::compile();
}

#[cfg(feature = "tensorrt")]
mod tensorrt {
    use std::env;
    use std::path::PathBuf;

    /// Where headers may be, best first: the environment's word, the system's, those that scripts/tensorrt
    /// prepares. Never the network.
    fn headers(header: &str, variable: &str, system: &[&str], prepared: &str) -> PathBuf {
        println!("cargo::rerun-if-env-changed={variable}");
        let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
        let named = env::var_os(variable).filter(|folder| !folder.is_empty());
        let folders: Vec<PathBuf> = match &named {
            Some(folder) => vec![folder.into()],
            None => system.iter().map(PathBuf::from).chain([root.join(prepared)]).collect(),
        };
        let found = folders.iter().find(|folder| folder.join(header).is_file());
        let looked: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        found.cloned().unwrap_or_else(|| {
            panic!(
                "\n\nThe feature `tensorrt` needs {header}, which is not in {}. Install the board's TensorRT \
                 (libnvinfer-dev), name the folder in {variable}, or run scripts/tensorrt, which prepares the \
                 headers of TensorRT-RTX.\n\n",
                looked.join(", ")
            )
        })
    }

    pub fn compile() {
        let triple = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
            Ok("aarch64") => "/usr/include/aarch64-linux-gnu",
            _ => "/usr/include/x86_64-linux-gnu",
        };
        let tensorrt = headers(
            "NvInfer.h",
            "OCELLI_TENSORRT_INCLUDE",
            &[triple, "/usr/include", "/usr/local/tensorrt/include"],
            "assets/tensorrt/include/rtx-1.7",
        );
        let cuda = headers(
            "cuda_runtime_api.h",
            "OCELLI_CUDA_INCLUDE",
            &["/usr/local/cuda/include", "/usr/include"],
            "assets/tensorrt/include/cuda",
        );
        cxx_build::bridge("src/infer/tensorrt/bridge.rs")
            .file("cpp/engine.cpp")
            .std("c++17")
            // Their warnings are not ours.
            .flag("-isystem")
            .flag(&tensorrt)
            .flag("-isystem")
            .flag(&cuda)
            .compile("ocelli_tensorrt");
        println!("cargo::rerun-if-changed=cpp");
        println!("cargo::rerun-if-changed=src/infer/tensorrt/bridge.rs");
        println!("cargo::rustc-env=OCELLI_TENSORRT_HEADERS={}", tensorrt.display());
    }
}
