//! Rot is found: a node that has started on a log which is damaged where it was durable does not take all of its replicas
//! for whole.

/// Node `node` has started on its disk; `well` if it says that no replica is in trouble.
pub fn judge(node: u64, well: bool, damaged: bool) -> Option<String> {
    (well && damaged)
        .then(|| format!("node {node}: its log is damaged where it was durable, and all of its replicas are well"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_well_on_a_damaged_log_is_seen() {
        assert!(judge(1, true, true).is_some());
        assert_eq!([judge(1, false, true), judge(1, true, false), judge(1, false, false)], [None, None, None]);
    }
}
