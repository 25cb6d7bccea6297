//! Worlds that break what the product builds on.

use std::collections::BTreeMap;
use std::time::Duration;

use stoa_env::task::spawn_unwatched;

use crate::world::World;

/// When a device begins to lie: one that always has has no log to start from, which every node sees.
const LIES_AFTER: Duration = Duration::from_secs(5);

/// Devices that answer syncs without doing anything.
pub fn lying_disks(world: &mut World) {
    let disks: Vec<_> = world.machines.iter().map(|machine| machine.disk.clone()).collect();
    spawn_unwatched(async move {
        tokio::time::sleep(LIES_AFTER).await;
        disks.iter().for_each(|disk| disk.set_lying(true));
    });
}

/// A machine whose calendar is an hour ahead from the beginning: the one of the zone from which rows that expire are read.
pub fn wrong_calendar(world: &mut World) {
    world.machines[0].clock().jump_wall(3_600_000_000);
}

/// A network in which a node may get an earlier append of the sender again in the place of a newer one, whose sender
/// takes the answer for that of the newer one.
pub fn replaying_network(world: &mut World) {
    let mut count = 0u64;
    let mut earlier: BTreeMap<(String, String), bytes::Bytes> = BTreeMap::new();
    world.net.set_tamper(Box::new(move |from, to, bytes| {
        if !(from.starts_with('n') && to.starts_with('n') && bytes.len() > 400) {
            return bytes;
        }
        count += 1;
        let before = earlier.insert((from.to_owned(), to.to_owned()), bytes.clone());
        before.filter(|_| count.is_multiple_of(40)).unwrap_or(bytes)
    }));
}

/// A network past whose checksum one value becomes another.
pub fn altering_network(world: &mut World) {
    world.net.set_tamper(Box::new(|from, to, bytes| match from.starts_with('n') && to.starts_with('c') {
        true => exchange(bytes),
        false => bytes,
    }));
}

/// The answer with the first "value 1" in it turned into "value 2", and its checksum made to fit.
fn exchange(bytes: bytes::Bytes) -> bytes::Bytes {
    use stoa_protocol::frame::{decode_frame, encode_frame};
    let Ok((header, body)) = decode_frame(&bytes) else { return bytes };
    let mut body = body.to_vec();
    let Some(at) = body.windows(7).position(|window| window == b"value 1") else { return bytes };
    body[at + 6] = b'2';
    encode_frame(&header, &body)
}
