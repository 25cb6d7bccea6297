//! `raft`'s envelope, and the calls and answers in it.

use bytes::Bytes;
use stoa_protocol::{PartitionId, ReplicaId};
use stoa_raft::{Envelope, RaftAnswer, RaftCall, open_envelope, open_message, seal};

use super::Seed;
use crate::round_trip::taken;

/// An envelope.
pub fn run(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let Some((envelope, message)) = taken(open_envelope(&bytes)) else { return };
    if let Some(call) = taken(open_message::<RaftCall>(&message)) {
        let (again, message) = opened(&seal(&envelope, &call));
        assert_eq!(again, envelope);
        let again: RaftCall = open_message(&message).expect("what was just written");
        assert_eq!(format!("{again:?}"), format!("{call:?}"));
    }
    if let Some(answer) = taken(open_message::<RaftAnswer>(&message)) {
        let (_, message) = opened(&seal(&envelope, &answer));
        let again: RaftAnswer = open_message(&message).expect("what was just written");
        assert_eq!(format!("{again:?}"), format!("{answer:?}"));
        assert!(!answer.is_followed() || matches!(answer, RaftAnswer::Append(_)));
    }
}

fn opened(sealed: &[u8]) -> (Envelope, Bytes) {
    open_envelope(&Bytes::copy_from_slice(sealed)).expect("what was just written")
}

/// A call and an answer of each kind. Most are written out, since the types in them are openraft's: numbers below 251 are
/// a byte, what is optional has a byte before it, and so have a list its length and an enum its variant.
pub fn seeds() -> Vec<Seed> {
    let envelope = Envelope { partition: PartitionId(7), to: ReplicaId(2), from: ReplicaId(1) };
    let head = seal(&envelope, &());
    let seed = |message: &[u8]| [&head, message].concat();
    let answer = |answer: RaftAnswer| seal(&envelope, &answer);
    // Term 2, voted for replica 1.
    let (vote, granted) = (&[2, 1, 1, 0][..], &[2, 1, 1, 1][..]);
    let entries = &[
        &[3][..],
        &[2, 5, 0],
        &[2, 6, 1, 4, b'r', b'o', b'w', b's'],
        &[2, 7, 2, 2, 2, 1, 2, 2, 2, 3, 3, 1, 10, 2, 20, 3, 30],
    ]
    .concat();
    vec![
        ("append", seed(&[&[0], granted, &[1, 1, 4], entries, &[1, 1, 4]].concat())),
        ("heartbeat", seed(&[&[0], granted, &[0, 0, 0]].concat())),
        ("vote", seed(&[&[1], vote, &[1, 1, 4, 0]].concat())),
        ("pre_vote", seed(&[&[2], vote, &[0, 1]].concat())),
        ("transfer", seed(&[&[3], granted, &[2, 1, 1, 4]].concat())),
        ("begin", seed(&[&[4, 9], granted, &[3, 1, 0, 0], &[2, 200, 251, 1, 1, 0, 5, 6, 1]].concat())),
        ("chunk", seed(&[5, 9, 1, 3, 1, 2, 3])),
        ("end", seed(&[&[6, 9], granted].concat())),
        ("appended", seed(&[0, 0])),
        ("voted", seed(&[&[1], vote, &[1, 1, 1, 4]].concat())),
        ("go_on", answer(RaftAnswer::SnapshotGoOn { next: 300 })),
        ("installed", seed(&[&[4], granted].concat())),
        ("refused", answer(RaftAnswer::Refused("no".into()))),
        ("no_room", answer(RaftAnswer::NoRoom("full".into()))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_a_call_or_an_answer() {
        for (name, seed) in seeds() {
            let (_, message) = opened(&seed);
            let call = open_message::<RaftCall>(&message).map(drop);
            assert!(call.is_ok() || open_message::<RaftAnswer>(&message).is_ok(), "{name}: {call:?}");
        }
    }
}
