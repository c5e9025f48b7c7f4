//! Records which commit was built.

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
}
