//! Log matching: where two logs of a group have an entry of the same index and term, it is the same entry, and all before
//! it are the same, too. Each entry is compared with its like and with the term before it: the rest follows.

use std::collections::BTreeMap;

/// The entries seen so far: by group, index and term, their bytes' hash and the term of the entry before.
#[derive(Debug, Default)]
pub struct LogMatching {
    entries: BTreeMap<(u64, u64, u64), Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    node: u64,
    hash: u64,
    before: Option<u64>,
}

impl LogMatching {
    /// Node `node` has written entry `index` of `term`, after one of term `before` if that is known.
    pub fn judge(
        &mut self,
        node: u64,
        group: u64,
        (index, term): (u64, u64),
        hash: u64,
        before: Option<u64>,
    ) -> Option<String> {
        let known = self.entries.entry((group, index, term)).or_insert(Known { node, hash, before });
        let other = known.node;
        if known.hash != hash {
            return Some(format!("group {group}, entry {index} of term {term}: nodes {other} and {node} differ in it"));
        }
        match (known.before, before) {
            (Some(theirs), Some(mine)) if theirs != mine => Some(format!(
                "group {group}, entry {index} of term {term}: on node {other} it follows one of term {theirs}, on node \
                 {node} one of term {mine}"
            )),
            _ => {
                known.before = known.before.or(before);
                None
            }
        }
    }

    /// Entries that were compared, or wait for it.
    pub fn entries(&self) -> u64 {
        self.entries.len() as u64
    }
}
