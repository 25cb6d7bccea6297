//! What a node and its clients sleep by is the monotonic clock of their process (`env/src/timer.rs`): tokio's own timers would
//! not stand still with a machine that is suspended.

use std::path::{Path, PathBuf};

/// Files of the code that a simulation runs; tests apart.
fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("the sources are here").map(|entry| entry.expect("and are read").path())
    {
        if entry.is_dir() && !entry.ends_with("tests") {
            sources(&entry, out);
        } else if entry.extension().is_some_and(|end| end == "rs") && !entry.ends_with("tests.rs") {
            out.push(entry);
        }
    }
}

/// The calls of tokio's timers in a file, those of its tests apart.
fn timers(text: &str) -> Vec<&str> {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let timers = ["tokio::time::sleep", "tokio::time::timeout", "tokio::time::interval", "use tokio::time::"];
    let asks =
        |line: &&str| timers.iter().any(|timer| line.contains(timer)) && !line.contains("use tokio::time::Instant");
    product.lines().filter(asks).collect()
}

#[test]
fn nodes_and_clients_sleep_by_the_clock_of_their_process() {
    assert_eq!(timers("a\ntokio::time::sleep(b).await\n#[cfg(test)]\nmod tests {\ntokio::time::sleep(c)").len(), 1);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let mut files = Vec::new();
    for dir in ["raft/src", "client/src", "server/src/node", "server/src/load", "store/src"] {
        sources(&root.join(dir), &mut files);
    }
    assert!(files.len() > 80, "{files:?}");
    let found: Vec<String> = files
        .iter()
        .filter(|file| file.file_name().is_some_and(|name| name != "storage_suite.rs"))
        .flat_map(|file| {
            let text = std::fs::read_to_string(file).expect("the sources are read");
            timers(&text).into_iter().map(|line| format!("{}: {line}", file.display())).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(found, Vec::<String>::new(), "use stoa_env::sleep and stoa_env::timeout");
}
