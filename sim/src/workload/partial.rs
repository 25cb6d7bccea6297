//! Writers of some of a row's features, as jobs have them that each compute a few.

use stoa_client::{Group, GroupWriter, WriterOptions};
use stoa_protocol::FeatureType;

use crate::chance::Chance;
use crate::net::SimTransport;
use crate::plan::Plan;
use crate::rows::{FEATURES, Features};

/// Subsets that one client writes: each has a writer, and a session of its own if the client writes in sessions.
const SUBSETS: usize = 3;

/// A writer, and what it writes in the order of its values.
pub(super) struct FeatureWriter {
    pub features: Features,
    pub order: Vec<usize>,
    /// The types of the schema with which it was opened, in that order.
    pub types: Vec<FeatureType>,
    pub writer: GroupWriter<SimTransport>,
}

/// One client's writers of subsets.
pub(super) struct Partial {
    chance: Chance,
    per_million: u64,
    writers: Vec<FeatureWriter>,
}

impl FeatureWriter {
    /// One that writes these features, named in this order.
    pub(super) fn open(group: &Group<SimTransport>, order: Vec<usize>, options: WriterOptions) -> Result<Self, String> {
        let names: Vec<&str> = order.iter().map(|feature| FEATURES[*feature]).collect();
        let writer = group.writer(&names, options).map_err(|e| e.to_string())?;
        let features = Features::of_bits(order.iter().map(|feature| 1 << feature).sum());
        let types = order.iter().map(|feature| group.definition().features[*feature].ty).collect();
        Ok(Self { features, order, types, writer })
    }
}

impl Partial {
    /// The writers of a client, out of a stream of their own. The order in which one names its features is any.
    pub(super) fn open(
        group: &Group<SimTransport>,
        plan: &Plan,
        client: usize,
        options: WriterOptions,
    ) -> Result<Self, String> {
        let chance = Chance::new(plan.seed, &format!("partial rows {client}"));
        let mut writers = Vec::new();
        for _ in 0..SUBSETS {
            let mut order: Vec<usize> = Features::of_bits(chance.bits()).places().collect();
            let first = chance.below(order.len() as u64) as usize;
            order.rotate_left(first);
            let session = options.session.map(|_| u128::from(chance.bits()) + 1);
            writers.push(FeatureWriter::open(group, order, WriterOptions { session, ..options })?);
        }
        Ok(Self { chance, per_million: plan.work.partial_per_million, writers })
    }

    /// The writer of the next call, if it is to write a subset.
    pub(super) fn draw(&self) -> Option<&FeatureWriter> {
        self.chance.hits(self.per_million).then(|| self.chance.pick(&self.writers))
    }
}
