//! Rows made from a seed, so that millions of them need no file and every value that is read can be checked.

use stoa_protocol::frame::FramedBody;
use stoa_protocol::key::{KeyBlock, encode_key};
use stoa_protocol::read::{Projection, ReadLevel, ReadRequest, ReadSection, SectionResult};
use stoa_protocol::row_block::{AnswerWriter, SectionRows};
use stoa_protocol::{
    FeatureGroup, FeatureGroupId, FeatureType, KeyType, KeyValue, LogIndex, PartitionId, RowBatch, RowBatchBuilder,
    Value,
};
use stoa_store::{PartitionReader, SectionSource, read_sections};

/// A group of `Float32` features under one integer key.
pub struct Floats {
    /// Its definition.
    pub group: FeatureGroup,
}

impl Floats {
    /// A group of this many features.
    pub fn new(features: usize) -> Self {
        let names: Vec<String> = (0..features).map(|at| format!("f{at}")).collect();
        let features: Vec<_> = names.iter().map(|name| (name.as_str(), FeatureType::Float32)).collect();
        Self { group: FeatureGroup::simple(1, "rows", &[("id", KeyType::Int64)], &features) }
    }

    /// The number of features.
    pub fn features(&self) -> usize {
        self.group.features.len()
    }

    /// A batch of whole rows of version `version`, which is their event time, too.
    pub fn batch(&self, ids: impl Iterator<Item = u64>, version: i64) -> RowBatch {
        let features: Vec<u16> = (0..self.features() as u16).collect();
        let mut builder = RowBatchBuilder::new(&self.group, &features);
        for id in ids {
            let values: Vec<Value> = features.iter().map(|&at| Value::Float32(value(id, at, version))).collect();
            builder.upsert(&key(id), version, 0, &values).expect("the values are of the group's types");
        }
        builder.finish().expect("a batch of the benchmark has rows")
    }

    /// Asks for the first `features` features of these rows.
    pub fn ask(&self, ids: &[u64], features: usize) -> Ask {
        self.ask_features(ids, (0..features as u16).collect())
    }

    /// Asks for these features of these rows.
    pub fn ask_features(&self, ids: &[u64], features: Vec<u16>) -> Ask {
        let mut keys = KeyBlock::new();
        ids.iter().for_each(|id| keys.push(&key(*id)));
        Ask { projection: Projection { group: FeatureGroupId(1), schema_version: 1, features }, keys }
    }
}

/// What a read asks of one partition.
pub struct Ask {
    /// The features.
    pub projection: Projection,
    /// The keys.
    pub keys: KeyBlock,
}

impl Ask {
    /// As a node does it for a request of one section: the bytes of the answer.
    pub fn answer(&self, reader: &PartitionReader) -> FramedBody {
        let keys = self.keys.range(0, self.keys.len());
        let source = SectionSource { reader, at_least: LogIndex(0), time_us: reader.time_us(), keys };
        let mut answer = AnswerWriter::new(1);
        let result = read_sections(&self.projection, &[source], &mut answer).remove(0);
        answer.finish(&[result.map_or_else(SectionResult::Failed, SectionResult::Rows)])
    }

    /// The same, taken apart.
    pub fn read(&self, reader: &PartitionReader) -> Result<SectionRows, String> {
        reader.read(&self.projection, &self.keys, LogIndex(0)).map_err(|error| error.to_string())
    }

    /// As a request.
    pub fn request(self) -> ReadRequest {
        let keys = self.keys.len() as u32;
        let section =
            ReadSection { partition: PartitionId(2), at_least: LogIndex(0), projection: 0, first_key: 0, keys };
        ReadRequest {
            level: ReadLevel::default(),
            projections: vec![self.projection],
            keys: self.keys,
            sections: vec![section],
        }
    }
}

/// What feature `at` of row `id` is in version `version`.
pub fn value(id: u64, at: u16, version: i64) -> f32 {
    (mix(id ^ u64::from(at) << 48 ^ (version as u64) << 32) >> 40) as f32
}

/// The key of row `id`: spread over the whole range of integers, as ids of a real catalogue are.
pub fn key_value(id: u64) -> KeyValue {
    (mix(id) as i64).into()
}

fn key(id: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(&[KeyType::Int64], &[key_value(id)], &mut out).expect("an integer key always fits");
    out
}

/// A bijection of 64 bits that looks like chance (the finaliser of SplitMix64, Steele, Lea and Flood 2014).
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Numbers below a bound, the same in every run.
pub struct Picks {
    state: u64,
    below: u64,
}

impl Picks {
    /// Numbers below `below`, by `seed`.
    pub fn new(seed: u64, below: u64) -> Self {
        Self { state: seed, below }
    }

    /// As many as are wanted, all different from each other.
    pub fn distinct(&mut self, count: usize) -> Vec<u64> {
        assert!(count as u64 <= self.below, "{count} different numbers below {} are asked for", self.below);
        let mut out = Vec::with_capacity(count);
        while out.len() < count {
            let next = self.next().expect("picks never end");
            if !out.contains(&next) {
                out.push(next);
            }
        }
        out
    }
}

impl Iterator for Picks {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.state = self.state.wrapping_add(1);
        Some(mix(self.state) % self.below)
    }
}

/// Numbers below a bound, number `i` with a chance that falls as 1 / (i + 1)^theta (Gray et al., "Quickly Generating
/// Billion-Record Synthetic Databases", SIGMOD 1994, section 3.1; YCSB uses the same with theta = 0.99).
#[derive(Debug, Clone, Copy)]
pub struct Zipf {
    below: u64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    /// Numbers below `below`, two or more; `theta` above 0 and below 1.
    pub fn new(below: u64, theta: f64) -> Self {
        assert!(below >= 2 && theta > 0.0 && theta < 1.0, "no Zipf distribution of {below} numbers by {theta}");
        let zeta: f64 = (1..=below).map(|i| (i as f64).powf(-theta)).sum();
        let zeta_2 = 1.0 + 0.5_f64.powf(theta);
        let eta = (1.0 - (2.0 / below as f64).powf(1.0 - theta)) / (1.0 - zeta_2 / zeta);
        Self { below, theta, alpha: 1.0 / (1.0 - theta), zeta, eta }
    }

    /// Pick number `n`, the same in every run.
    pub fn pick(&self, n: u64) -> u64 {
        let u = (mix(n) >> 11) as f64 / (1u64 << 53) as f64;
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5_f64.powf(self.theta) {
            return 1;
        }
        let at = (self.below as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64;
        at.min(self.below - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_number_has_its_share_and_rare_ones_occur() {
        let zipf = Zipf::new(1_000, 0.99);
        let picks: Vec<u64> = (0..100_000).map(|n| zipf.pick(n)).collect();
        // The sum of i^-0.99 for i from 1 to 1,000 is 7.73: number 0 has 12.9 %.
        let first = picks.iter().filter(|pick| **pick == 0).count();
        assert!((12_000..14_000).contains(&first), "{first} of 100,000");
        assert!(picks.iter().any(|pick| *pick > 900));
    }
}
