//! What a node's proposals may hold of its memory while their callers wait for the commit, over all groups. What comes of
//! an entry whose caller has given up is bounded by the log.

use std::sync::Arc;

use stoa_env::{Bounds, Gauge, Hold};
use stoa_protocol::{ErrorBody, ErrorCode, PartitionId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::log::COMMAND_BYTES_MAX;

/// Proposals of one group that wait for their commit. More are refused with `Overloaded`.
pub const PROPOSALS_MAX: usize = 128;

/// Their bytes. An eighth of the node's, so that one group without a quorum does not take the others' share.
pub const GROUP_BYTES_MAX: usize = NODE_BYTES_MAX / 8;

/// Bytes of all proposals of a node that wait for their commit: what a slow quorum can make it hold beside its logs.
pub const NODE_BYTES_MAX: usize = 128 << 20;

/// How long a caller that was refused should pause: some rounds of the log.
const PAUSE_MS: u32 = 5;

const _: () = assert!(COMMAND_BYTES_MAX <= GROUP_BYTES_MAX, "the largest command must fit");
const _: () = assert!(NODE_BYTES_MAX <= u32::MAX as usize, "permits are counted in 32 bits");

/// The bytes of all proposals of a node; clones share it.
#[derive(Clone)]
pub struct NodeBudget {
    bytes: Arc<Semaphore>,
}

impl Default for NodeBudget {
    fn default() -> Self {
        Self { bytes: Arc::new(Semaphore::new(NODE_BYTES_MAX)) }
    }
}

/// One group's share.
pub(crate) struct GroupBudget {
    partition: PartitionId,
    node: NodeBudget,
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    gauges: [Gauge; 3],
}

/// The place of one proposal; dropping it gives it back.
// Held, never read. The count falls before the permit is back, so that no other thread counts itself in beside this one.
pub(crate) struct Place(#[allow(dead_code)] [(Hold, OwnedSemaphorePermit); 3]);

impl GroupBudget {
    pub(crate) fn new(partition: PartitionId, node: NodeBudget, bounds: &Bounds) -> Self {
        let (count, bytes) = (Semaphore::new(PROPOSALS_MAX), Semaphore::new(GROUP_BYTES_MAX));
        let gauges = [
            bounds.gauge("proposals of a group", PROPOSALS_MAX as u64),
            bounds.gauge("bytes of proposals of a group", GROUP_BYTES_MAX as u64),
            bounds.node_gauge("bytes of proposals of the node", NODE_BYTES_MAX as u64),
        ];
        Self { partition, node, count: Arc::new(count), bytes: Arc::new(bytes), gauges }
    }

    /// A place for a proposal of `bytes`, or the refusal with what is used up.
    pub(crate) fn take(&self, bytes: usize) -> Result<Place, ErrorBody> {
        let partition = self.partition;
        if bytes > COMMAND_BYTES_MAX {
            let message =
                format!("partition {partition}: a command of {bytes} bytes; {COMMAND_BYTES_MAX} are the limit");
            return Err(ErrorBody::new(ErrorCode::TooLarge, message));
        }
        let bounds = [
            (&self.count, 1, format!("{PROPOSALS_MAX} proposals of partition {partition}")),
            (&self.bytes, bytes, format!("{GROUP_BYTES_MAX} bytes of proposals of partition {partition}")),
            (&self.node.bytes, bytes, format!("{NODE_BYTES_MAX} bytes of proposals of this node")),
        ];
        let mut permits = Vec::with_capacity(bounds.len());
        for ((semaphore, wanted, what), gauge) in bounds.into_iter().zip(&self.gauges) {
            let Ok(permit) = semaphore.clone().try_acquire_many_owned(wanted as u32) else {
                let message = format!("{what} are about as many as may wait for their commit; pause and send it again");
                return Err(ErrorBody { retry_after_ms: PAUSE_MS, ..ErrorBody::new(ErrorCode::Overloaded, message) });
            };
            permits.push((gauge.hold(wanted as u64), permit));
        }
        Ok(Place(permits.try_into().expect("one permit was pushed for each of three bounds")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_are_bounded_by_number_and_bytes_of_the_group_and_bytes_of_the_node() {
        let (node, counted) = (NodeBudget::default(), Bounds::default());
        let groups: Vec<_> = (1..=9).map(|id| GroupBudget::new(PartitionId(id), node.clone(), &counted)).collect();
        let small: Vec<_> = (0..PROPOSALS_MAX).map(|_| groups[0].take(1).unwrap()).collect();
        let refused = groups[0].take(1).err().unwrap();
        assert_eq!((refused.code, refused.retry_after_ms), (ErrorCode::Overloaded, PAUSE_MS));
        assert!(refused.message.contains("128 proposals"), "{refused}");
        drop(small);

        let each = GROUP_BYTES_MAX / 8;
        let mut held: Vec<_> = groups[..8].iter().flat_map(|g| (0..8).map(|_| g.take(each).unwrap())).collect();
        assert!(groups[0].take(1).err().unwrap().message.contains("partition 1"), "the group's share is used up");
        assert!(
            groups[8].take(1).err().unwrap().message.contains("this node"),
            "the node's is, and this group has none"
        );
        assert!(counted.table().iter().all(|bounded| bounded.high == bounded.bound), "{:?}", counted.table());
        held.pop();
        groups[8].take(each).unwrap();
        assert_eq!(groups[8].take(COMMAND_BYTES_MAX + 1).err().unwrap().code, ErrorCode::TooLarge);
    }
}
