//! Versions interoperate: the cluster's version is never above what a node speaks that runs and belongs to it, and no node
//! finds a command in its log that its program does not understand.

/// Node `node` runs a program that speaks up to `speaks`; a copy of the root state says that the cluster is at `cluster`.
pub fn judge(node: u64, speaks: u32, cluster: u32) -> Option<String> {
    (cluster > speaks).then(|| {
        format!("the cluster is at version {cluster}, and node {node} runs a program that speaks up to {speaks}")
    })
}

/// What a replica on node `node` says of its trouble, if it is in some.
pub fn judge_trouble(node: u64, trouble: &str) -> Option<String> {
    trouble
        .contains("the command cannot be read")
        .then(|| format!("node {node} has found a command in its log that it does not understand: {trouble}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_runs_ahead_of_a_node_is_seen() {
        assert_eq!((judge(1, 1, 1), judge(1, 2, 1)), (None, None));
        assert!(judge(1, 1, 2).is_some());
        let unreadable =
            stoa_raft::ApplyError::Unreadable(stoa_protocol::codec::DecodeError::invalid("a version", 2, 1));
        assert!(judge_trouble(1, &unreadable.to_string()).is_some());
        assert_eq!(judge_trouble(1, "an answer of the log is missing"), None);
    }
}
