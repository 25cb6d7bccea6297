//! What is purged is in a snapshot: when a log says that its entries up to some index are of no use any more, a snapshot that
//! would survive a loss of power has them all.

use crate::observe::disk_log::GroupLog;

/// Node `node` has durably purged the entries of `group` up to `index`; `durable` is what it has besides.
pub fn judge(node: u64, group: u64, index: u64, durable: &GroupLog) -> Option<String> {
    let covered = durable.is_covered(index);
    (!covered).then(|| {
        let snapshot = durable.snapshot;
        format!("node {node}, group {group}: the log is purged up to {index}, and the snapshot ends at {snapshot:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_beyond_the_snapshot_is_seen() {
        let covered = GroupLog { snapshot: Some(7), ..GroupLog::default() };
        assert_eq!(judge(1, 2, 7, &covered), None);
        assert!(judge(1, 2, 8, &covered).is_some());
        assert!(judge(1, 2, 1, &GroupLog::default()).is_some());
    }
}
