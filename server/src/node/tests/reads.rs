//! Multi-gets on one node.

use std::time::Duration;

use stoa_protocol::key::KeyBlock;
use stoa_protocol::message::ReadRequest;
use stoa_protocol::read::{ReadSection, SectionResult};
use stoa_protocol::{ErrorCode, FeatureGroupId, LogIndex, PartitionId};

use super::cluster::{Cluster, until};

#[tokio::test]
async fn a_section_that_is_late_takes_no_other_one_with_it() {
    let cluster = Cluster::formed(2, 3).await;
    let node = cluster.node(1);
    until("both replicas serve", || node.all_hosted().iter().filter(|h| h.replica.is_caught_up()).count() == 2).await;
    let partitions: Vec<PartitionId> = node.all_hosted().iter().map(|hosted| hosted.replica.partition()).collect();
    let section = |at: usize, at_least: u64| ReadSection {
        partition: partitions[at],
        group: FeatureGroupId(1),
        schema_version: 1,
        at_least: LogIndex(at_least),
        features: Vec::new(),
        keys: KeyBlock::new(),
    };
    // No group is defined, so what is answered at all is answered with that.
    let request = ReadRequest { sections: vec![section(0, u64::MAX), section(1, 0), section(1, u64::MAX)] };
    let answer = node.read(&request, Duration::from_millis(200)).await;
    let codes: Vec<_> = answer
        .sections
        .iter()
        .map(|result| match result {
            SectionResult::Failed(error) => error.code,
            SectionResult::Rows(_) => panic!("there are no rows"),
        })
        .collect();
    assert_eq!(codes, [ErrorCode::NotCaughtUp, ErrorCode::SchemaNotReady, ErrorCode::NotCaughtUp]);
}
