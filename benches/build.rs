//! Tells the benchmarks what they were built with: instruction counts of two compilers do not compare.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var("RUSTC").expect("cargo sets RUSTC for build scripts");
    let version = Command::new(rustc).arg("--version").output().expect("cargo has just run this rustc");
    set("RUSTC", String::from_utf8_lossy(&version.stdout).trim());
    for (name, of) in [("TARGET", "TARGET"), ("OPT_LEVEL", "OPT_LEVEL"), ("RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS")] {
        // Flags stand in one variable, apart by the unit separator.
        set(name, &std::env::var(of).unwrap_or_default().replace('\u{1f}', " "));
    }
}

fn set(name: &str, value: &str) {
    println!("cargo::rustc-env=STOA_BENCH_{name}={value}");
}
