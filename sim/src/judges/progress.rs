//! Progress goes one way: within a life, a replica's term, commit position, applied position, snapshot and purge point never
//! fall, and at every moment purged <= snapshot <= applied <= committed <= last.

use std::collections::BTreeMap;

use stoa_raft::Standing;

/// Where each replica stood last: by node and group, with the node's life.
#[derive(Debug, Default)]
pub struct Progress {
    last: BTreeMap<(u64, u64), (u64, Standing)>,
}

impl Progress {
    /// A replica on node `node` stands so in the node's life `life`.
    pub fn judge(&mut self, node: u64, life: u64, standing: &Standing) -> Option<String> {
        let group = standing.partition.0;
        let before = self.last.insert((node, group), (life, *standing));
        let told = |what: String| Some(format!("node {node}, group {group}: {what}: {standing:?}"));
        let index = |place: Option<stoa_raft::LogPlace>| place.map(|place| place.index);
        let order = [
            ("purged", index(standing.purged)),
            ("snapshot", index(standing.snapshot)),
            ("applied", index(standing.applied)),
            ("committed", index(standing.committed)),
            ("last", standing.last),
        ];
        if let Some(pair) = order.windows(2).find(|pair| pair[0].1 > pair[1].1) {
            return told(format!("{} is beyond {}", pair[0].0, pair[1].0));
        }
        let (_, before) = before.filter(|(lived, before)| *lived == life && before.replica == standing.replica)?;
        let falls = [
            ("the term", before.term > standing.term),
            ("committed", before.committed > standing.committed),
            ("applied", before.applied > standing.applied),
            ("snapshot", before.snapshot > standing.snapshot),
            ("purged", before.purged > standing.purged),
        ];
        let (what, _) = falls.iter().find(|(_, falls)| *falls)?;
        told(format!("{what} falls, from {before:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_protocol::{PartitionId, ReplicaId};
    use stoa_raft::LogPlace;

    #[test]
    fn a_fall_within_a_life_and_an_order_that_cannot_be_are_seen() {
        let place = |index| Some(LogPlace { index, term: 2 });
        let good = Standing {
            partition: PartitionId(2),
            replica: ReplicaId(1),
            term: 2,
            leads: false,
            quorum_age: None,
            last: Some(9),
            committed: place(8),
            applied: place(8),
            snapshot: place(5),
            purged: place(4),
        };
        let mut progress = Progress::default();
        assert_eq!(progress.judge(1, 1, &good), None);
        let falls: [(&str, Standing); 5] = [
            ("the term", Standing { term: 1, ..good }),
            ("committed", Standing { committed: place(7), applied: place(7), ..good }),
            ("applied", Standing { applied: place(7), ..good }),
            ("snapshot", Standing { snapshot: place(4), ..good }),
            ("purged", Standing { purged: None, ..good }),
        ];
        for (what, standing) in falls {
            let mut progress = Progress::default();
            assert_eq!(progress.judge(1, 1, &good), None);
            let broken = progress.judge(1, 1, &standing).unwrap();
            assert!(broken.contains(&format!("{what} falls")), "{broken}");
            let mut progress = Progress::default();
            assert_eq!(progress.judge(1, 1, &good), None);
            assert_eq!(progress.judge(1, 2, &standing), None, "another life begins where its disk ends");
        }
        let orders = [
            Standing { purged: place(6), ..good },
            Standing { snapshot: place(9), ..good },
            Standing { applied: place(9), ..good },
            Standing { committed: place(10), ..good },
        ];
        for standing in orders {
            assert!(Progress::default().judge(1, 1, &standing).unwrap().contains("is beyond"));
        }
    }
}
