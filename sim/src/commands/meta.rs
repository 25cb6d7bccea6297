//! Runs seeds twice each, in two processes, and compares every event.

use std::path::Path;
use std::process::Command;

/// Each seed in two processes: chance that leaks in from outside would differ between them.
pub fn meta(seeds: std::ops::Range<u64>) -> std::io::Result<bool> {
    let dir = std::env::temp_dir().join(format!("stoa-sim-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let mut equal = true;
    for seed in seeds {
        match twice(seed, &dir) {
            Ok(told) => println!("seed {seed}: {told}"),
            Err(told) => {
                println!(
                    "seed {seed}: {told}\nreplay: cargo run --release -p stoa-sim -- meta --from {seed} --seeds 1"
                );
                equal = false;
            }
        }
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(equal)
}

fn twice(seed: u64, dir: &Path) -> Result<String, String> {
    let traced = |name: &str| {
        let file = dir.join(name);
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let run = Command::new(program).arg("run").arg(seed.to_string()).arg("--trace").arg(&file).output();
        let output = run.map_err(|e| e.to_string())?;
        // A run that breaks a promise has ended, too; one that died has not said its hash.
        if !String::from_utf8_lossy(&output.stdout).contains(", hash ") {
            return Err(format!("a run has died: {}", String::from_utf8_lossy(&output.stderr)));
        }
        std::fs::read_to_string(&file).map_err(|e| e.to_string())
    };
    let (first, second) = (traced("first")?, traced("second")?);
    if let Some((line, (a, b))) = first.lines().zip(second.lines()).enumerate().find(|(_, (a, b))| a != b) {
        return Err(format!("line {} differs\n  {a}\n  {b}", line + 1));
    }
    if first.len() != second.len() || first.is_empty() {
        return Err("one trace ends before the other, or both are empty".into());
    }
    Ok(format!("{} lines, equal", first.lines().count()))
}
