//! What a process spends its time on, by `perf`, for figures that do not hold.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Functions that are named.
const FUNCTIONS: usize = 12;
/// Samples a second.
const FREQUENCY: &str = "497";
/// How often it is tried: a thread that ends while perf opens it ends the recording at its start.
const ATTEMPTS: usize = 3;
/// How much longer than the time asked for the recording may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The functions in which a process is most often found during `time`, with their share; or why there is no profile.
pub async fn profile(process: u32, time: Duration) -> Vec<String> {
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        match try_profile(process, time).await {
            Ok(lines) if !lines.is_empty() => return lines,
            Ok(_) => why = "perf found nothing".to_owned(),
            Err(error) => why = format!("{error:#}"),
        }
    }
    vec![format!("no profile: {why}")]
}

async fn try_profile(process: u32, time: Duration) -> anyhow::Result<Vec<String>> {
    let dir = tempfile::Builder::new().prefix("stoa-bench-perf-").tempdir()?;
    let file = dir.path().join("perf.data");
    let seconds = format!("{:.1}", time.as_secs_f64());
    let record = Command::new("perf")
        .args(["record", "-q", "-F", FREQUENCY, "-p", &process.to_string(), "-o"])
        .arg(&file)
        .args(["--", "sleep", &seconds])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(time + PATIENCE, record).await??;
    let said = String::from_utf8_lossy(&ended.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    anyhow::ensure!(ended.status.success(), "perf record ended with {}: {last}", ended.status);
    let report = Command::new("perf")
        .args(["report", "-q", "--stdio", "--no-children", "-F", "overhead,symbol", "-i"])
        .arg(&file)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let out = tokio::time::timeout(PATIENCE, report).await??;
    Ok(functions(&String::from_utf8_lossy(&out.stdout)))
}

/// Lines such as `  12.30%  [.] stoa_store::gather::read`, made `12.3 % stoa_store::gather::read`.
fn functions(report: &str) -> Vec<String> {
    let line = |line: &str| {
        let (share, rest) = line.trim().split_once('%')?;
        let share: f64 = share.trim().parse().ok()?;
        let (kind, name) = rest.trim().split_once(' ')?;
        let place = if kind == "[k]" { " (kernel)" } else { "" };
        let name = name.trim().split("  ").next().unwrap_or_default();
        (!name.is_empty()).then(|| format!("{share:.1} % {name}{place}"))
    };
    report.lines().filter_map(line).take(FUNCTIONS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_their_shares_are_found_in_what_perf_prints() {
        let report = "\n    12.30%  [.] stoa_store::gather::read   -      -      \n     4.00%  [k] copy_user_generic\n garbage\n";
        assert_eq!(functions(report), ["12.3 % stoa_store::gather::read", "4.0 % copy_user_generic (kernel)"]);
    }
}
