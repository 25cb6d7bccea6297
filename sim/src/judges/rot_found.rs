//! Rot is found: a node that has started on a log which is damaged where it was durable does not take all of its replicas
//! for whole.

/// Node `node` has started on its disk; `well` if it says that no replica is in trouble.
pub fn judge(node: u64, well: bool, damaged: bool) -> Option<String> {
    (well && damaged)
        .then(|| format!("node {node}: its log is damaged where it was durable, and all of its replicas are well"))
}
