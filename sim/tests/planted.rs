//! Planted bugs are in no build but their own.

use std::process::Command;

/// Whether cargo builds planted bugs for a command that ends with these arguments.
fn planted(of: &[&str]) -> bool {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--offline", "--prefix", "none", "--format", "{p} has [{f}]"]).args(of);
    let tree = tree.output().expect("cargo built this test");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("names of crates and features are text");
    let mut lines = tree.lines().filter(|line| line.starts_with("stoa-planted ")).peekable();
    assert!(lines.peek().is_some(), "everything depends on it:\n{tree}");
    lines.any(|line| line.ends_with(" has [planted]"))
}

#[test]
fn planted_bugs_are_in_no_build_but_their_own() {
    // The command of README and CI, each of its packages alone, and everything there is.
    for of in [&["-p", "stoa"][..], &["-p", "stoa-sim"], &["-p", "stoa", "-p", "stoa-sim"], &["--workspace"]] {
        assert!(!planted(of), "{of:?}");
    }
    assert!(planted(&["-p", "stoa-sim", "--features", "planted"]), "this test can fail");
}
