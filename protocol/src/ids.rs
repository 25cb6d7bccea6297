//! Names of things as numbers. All are issued by the root group's log and never used twice.

use std::fmt;

use crate::codec::{DecodeError, Reader, Wire};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self(<$inner>::get(input)?))
            }
        }
    };
}

id!(
    /// A process that hosts replicas, 1 and up.
    NodeId, u64);
id!(
    /// A partition of a partition set, and the Raft group that replicates it.
    PartitionId, u64);
id!(
    /// One replica in one life: a new number for each partition and incarnation.
    ReplicaId, u64);
id!(
    /// A partition set: a map from ranges of the key hash to partitions.
    PartitionSetId, u64);
id!(
    /// One version of a feature group.
    FeatureGroupId, u64);
id!(
    /// One version of a feature view.
    ViewId, u64);
id!(
    /// Counts the changes of the catalog and the partition map.
    MapVersion, u64);
id!(
    /// A place in the log of one partition.
    LogIndex, u64);

/// A cluster, drawn at random when it is made; shown as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        // A number may have a sign in front.
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Wire for ClusterId {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(u128::get(input)?))
    }
}

/// The root group's partition id: the catalog, the nodes and the maps live there. Data partitions begin at 2.
pub const ROOT_PARTITION: PartitionId = PartitionId(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_32_hexadecimal_digits_and_nothing_else() {
        let id = ClusterId(0xab << 100);
        assert_eq!(ClusterId::parse(&id.to_string()), Some(id));
        assert_eq!(ClusterId::parse(&id.to_string().to_uppercase()), Some(id));
        for text in ["", "ab", "+0000ab0000000000000000000000000", " 0000ab0000000000000000000000000"] {
            assert_eq!(ClusterId::parse(text), None, "{text:?}");
        }
    }
}
