//! Rot is found: a node that has started on a log which is damaged where it was durable does not take all of its replicas
//! for whole; and one that has started on a damaged snapshot does not start the replica whose snapshot it is. What was lost
//! comes from others, to another replica in its place.

use crate::observe::snapshots::Rot;

/// Node `node` has started on its disk; `well` if it says that no replica is in trouble.
pub fn judge(node: u64, well: bool, damaged: bool) -> Option<String> {
    (well && damaged)
        .then(|| format!("node {node}: its log is damaged where it was durable, and all of its replicas are well"))
}

/// Node `node` has started on files of a group of which one is damaged; `running` is the replica of the group that runs
/// there since, and is in no trouble.
pub fn judge_files(node: u64, rot: &Rot, running: Option<u64>) -> Option<String> {
    // Another replica in its place has nothing of these files.
    let replica = running.filter(|running| rot.replica.is_none_or(|replica| replica == *running))?;
    let (group, file) = (rot.group, rot.file.display());
    Some(format!("node {node}: {file} is damaged where it was durable, and replica {replica} of group {group} is well"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_well_on_a_damaged_log_is_seen() {
        assert!(judge(1, true, true).is_some());
        assert_eq!([judge(1, false, true), judge(1, true, false), judge(1, false, false)], [None, None, None]);
    }

    #[test]
    fn a_replica_that_is_well_on_a_damaged_snapshot_is_seen_and_one_in_its_place_is_not() {
        let rot = |replica| Rot { group: 2, replica, file: "snapshots/2/7-1-1/00000000.chunk".into() };
        assert!(judge_files(1, &rot(Some(3)), Some(3)).is_some());
        assert!(judge_files(1, &rot(None), Some(3)).is_some(), "whose files they are is what is damaged");
        assert_eq!(judge_files(1, &rot(Some(3)), None), None);
        assert_eq!(judge_files(1, &rot(Some(3)), Some(4)), None);
    }
}
