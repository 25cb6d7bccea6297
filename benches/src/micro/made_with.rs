//! What decides how many instructions the same source takes.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// What a count was made with. Counts of two compilers, C libraries, or machines do not compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeWith {
    /// The compiler.
    pub rustc: String,
    /// Flags for all crates.
    pub rustflags: String,
    /// The target triple.
    pub target: String,
    /// What is the processor's that code asks for when it runs: checksums and copies choose by it.
    pub cpu: String,
    /// The C library, whose allocator and copies are counted.
    pub libc: String,
    /// Valgrind.
    pub valgrind: String,
}

impl MadeWith {
    /// What this program, under this valgrind, has.
    pub fn here(valgrind: &str) -> Self {
        Self {
            rustc: env!("STOA_BENCH_RUSTC").into(),
            rustflags: env!("STOA_BENCH_RUSTFLAGS").into(),
            target: env!("STOA_BENCH_TARGET").into(),
            cpu: cpu(),
            libc: libc(),
            valgrind: valgrind.into(),
        }
    }

    /// What differs, a line each: name, theirs, ours.
    pub fn differences(&self, ours: &Self) -> Vec<String> {
        let pairs = [
            ("rustc", &self.rustc, &ours.rustc),
            ("rustflags", &self.rustflags, &ours.rustflags),
            ("target", &self.target, &ours.target),
            ("cpu", &self.cpu, &ours.cpu),
            ("libc", &self.libc, &ours.libc),
            ("valgrind", &self.valgrind, &ours.valgrind),
        ];
        let differ = pairs.into_iter().filter(|(_, theirs, ours)| theirs != ours);
        differ.map(|(name, theirs, ours)| format!("{name}: the baseline has {theirs:?}, here is {ours:?}")).collect()
    }
}

/// Whether the compiler was told to do its best. Counts of anything else say nothing.
pub fn is_optimised() -> bool {
    env!("STOA_BENCH_OPT_LEVEL") == "3" && !cfg!(debug_assertions)
}

/// Features that valgrind passes on, of those that code asks for.
#[cfg(target_arch = "x86_64")]
fn cpu() -> String {
    let features = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
    ];
    let has: Vec<_> = features.into_iter().filter_map(|(name, has)| has.then_some(name)).collect();
    has.join(" ")
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> String {
    String::new()
}

/// As the system says it; empty if it does not.
fn libc() -> String {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_with_both_sides() {
        let ours = MadeWith::here("valgrind-3.19.0");
        assert!(ours.differences(&ours).is_empty());
        let theirs = MadeWith { rustc: "rustc 1.2.3".into(), valgrind: "valgrind-3.0.0".into(), ..ours.clone() };
        let lines = theirs.differences(&ours);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains("rustc 1.2.3") && lines[0].contains(&ours.rustc), "{lines:?}");
        assert_eq!(lines[1], "valgrind: the baseline has \"valgrind-3.0.0\", here is \"valgrind-3.19.0\"");
    }
}
