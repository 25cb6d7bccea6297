//! Damage to what a disk holds, beyond what a crash does. The replica that it hits must not go on as if nothing were:
//! it has forgotten what it promised. So the budget is one machine of a run: a group whose second copy is damaged before
//! the first was replaced may lose rows, and nobody could blame it. What the node cannot use is given up: the machine gets
//! an empty disk, and an operator has its replicas built anew.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use stoa_protocol::message::ReplicaStatus;
use stoa_protocol::{PartitionId, ROOT_PARTITION};

use super::lost_disk::{may_damage, rebuild};
use super::{FaultKind, Step};
use crate::chance::Chance;
use crate::judges::{Broken, rot_found};
use crate::machine::Crash;
use crate::observe::snapshots::{self, Rot};
use crate::world::World;

/// An operator's look at a machine after it has started.
const LOOK_AFTER: Duration = Duration::from_secs(2);
/// Within this time others have heard how far a log has come.
const HEARD_AFTER: Duration = Duration::from_secs(1);
const SECTOR: usize = 512;
/// Bytes at the end of a segment that later frames may not have attested as durable yet. Damage there looks like a torn
/// tail, which is not the fault that is meant.
const UNATTESTED: usize = 16 << 10;
/// One bit in so many flips in the file that says whose snapshots these are.
const WHOSE: u64 = 8;
/// What a node says that ends because of it.
const OLD: &str = "is an old copy of itself";
/// Votes and positions of all groups stand in the first bytes of a segment.
const HEAD: usize = 512;

pub fn rot_in_log(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    strike(world, chance, lasts, |disk, chance| {
        let (path, len) = some_segment(disk, chance)?;
        let at = chance.below(len as u64) as usize;
        disk.flip(&path, at, chance.below(8) as u8);
        Some(format!("a bit of {} at {at}", path.display()))
    })
}

pub fn rot_in_vote(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    strike(world, chance, lasts, |disk, chance| {
        let (path, len) = some_segment(disk, chance)?;
        let at = chance.below(len.min(HEAD) as u64) as usize;
        disk.flip(&path, at, chance.below(8) as u8);
        Some(format!("a bit of the head of {} at {at}", path.display()))
    })
}

pub fn rot_in_snapshot(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    strike(world, chance, lasts, |disk, chance| {
        let files: Vec<PathBuf> = disk.paths().into_iter().filter(|path| path.starts_with("snapshots")).collect();
        let sound = |path: &&PathBuf| disk.synced_bytes(path) > 0;
        let of_snapshots: Vec<&PathBuf> = files.iter().filter(|path| is_of_snapshot(path)).filter(sound).collect();
        // The file that says whose they are is there from the first moment on; snapshots come later, and are meant.
        if of_snapshots.is_empty() {
            return None;
        }
        let path = match chance.below(WHOSE) {
            0 => *chance.pick(&files.iter().filter(|path| path.ends_with("replica")).filter(sound).collect::<Vec<_>>()),
            _ => *chance.pick(&of_snapshots),
        };
        let at = chance.below(disk.synced_bytes(path) as u64) as usize;
        disk.flip(path, at, chance.below(8) as u8);
        Some(format!("a bit of {} at {at}", path.display()))
    })
}

pub fn lost_write(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    strike(world, chance, lasts, |disk, chance| {
        let (path, len) = some_segment(disk, chance)?;
        let at = chance.below((len / SECTOR) as u64) as usize * SECTOR;
        if disk.bytes(&path)[at..at + SECTOR].iter().all(|byte| *byte == 0) {
            return None;
        }
        disk.overwrite(&path, at, &[0; SECTOR]);
        Some(format!("a sector of {} at {at} was never written", path.display()))
    })
}

pub fn misdirected_write(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    strike(world, chance, lasts, |disk, chance| {
        let ((path, len), (from, from_len)) = (some_segment(disk, chance)?, some_segment(disk, chance)?);
        let sector = |len: usize| chance.below((len / SECTOR) as u64) as usize * SECTOR;
        let (at, from_at) = (sector(len), sector(from_len));
        let bytes = disk.bytes(&from)[from_at..from_at + SECTOR].to_vec();
        if disk.bytes(&path)[at..at + SECTOR] == bytes {
            return None;
        }
        disk.overwrite(&path, at, &bytes);
        Some(format!("a sector of {} at {from_at} over one of {} at {at}", from.display(), path.display()))
    })
}

pub fn old_disk(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let at = may_damage(world, chance)?;
    let incarnation = world.machines[at].node()?.info().incarnation;
    let image = world.machines[at].disk.copy();
    world.machines[at].excuse(OLD);
    let had = Rc::new(Cell::new(None));
    let seen = had.clone();
    let note = move |world: &mut World| seen.set(log_end(&world.machines[at].disk));
    let back = move |world: &mut World| {
        world.machines[at].crash(Crash::Process);
        let old = log_end(&image) < had.take();
        world.observer.lose(world.machines[at].id());
        world.machines[at].disk.become_copy_of(&image);
        world.machines[at].set_damage("it is an old image".into(), incarnation);
        // Where links are bad or nodes die, others may not have heard of what it answered for.
        if old && world.plan.faults.iter().all(|kind| kind.lets_nodes_hear()) {
            world.observer.is_old(world.machines[at].id());
        }
        world.machines[at].start();
    };
    let look = move |world: &mut World| match is_well(world, at) {
        // Others have seen no more of it: it has not answered for anything since.
        true => world.machines[at].clear_damage(),
        false => rebuild(world, at),
    };
    let look = move |world: &mut World| {
        look(world);
        world.machines[at].end_excuse(OLD);
    };
    let steps = [Step::new(lasts - HEARD_AFTER, note), Step::new(HEARD_AFTER, back), Step::new(LOOK_AFTER, look)];
    Some(steps.into())
}

/// Damages the disk of a machine, which runs or lies down meanwhile, and lets a process of it start on what is left.
fn strike(
    world: &mut World,
    chance: &Chance,
    lasts: Duration,
    damage: impl Fn(&crate::disk::SimDisk, &Chance) -> Option<String>,
) -> Option<Vec<Step>> {
    let at = may_damage(world, chance)?;
    let incarnation = world.machines[at].node()?.info().incarnation;
    if chance.hits(500_000) {
        world.machines[at].crash(Crash::Process);
    }
    let what = damage(&world.machines[at].disk, chance);
    let struck = what.is_some();
    if let Some(what) = what {
        world.machines[at].set_damage(what, incarnation);
    }
    // It was down for nothing, then.
    if !struck {
        world.machines[at].start_if_down();
    }
    struck.then(|| found_and_mended(at, lasts))
}

/// After a time a process starts on what is left, and a while later an operator looks whether it can use it.
fn found_and_mended(at: usize, lasts: Duration) -> Vec<Step> {
    let started = Rc::new(Cell::new(0));
    let rotten: Rc<RefCell<Vec<Rot>>> = Rc::default();
    let (life, rot) = (started.clone(), rotten.clone());
    let restart = move |world: &mut World| {
        world.machines[at].crash(Crash::Process);
        rot.replace(snapshots::damaged(&world.machines[at].disk));
        // The judge remembers what is damaged now: it may be gone by the time it is asked again.
        world.observer.is_damaged(world.machines[at].id());
        world.machines[at].start();
        life.set(world.machines[at].life());
    };
    let look = move |world: &mut World| {
        let (id, well) = (world.machines[at].id(), is_well(world, at));
        // One that has only just started again has not looked at everything yet.
        if world.machines[at].life() == started.get() {
            // One that has written down what it found may be well after a while: what was damaged has been replaced, or has
            // moved away.
            let told = world.machines[at].disk.paths().iter().any(|path| path == Path::new("damage"));
            let log = rot_found::judge(id, well && !told, world.observer.is_damaged(id));
            world.broken.extend(log.map(|what| Broken { judge: "rot in a log is found", what }));
            for rot in rotten.take() {
                let what = rot_found::judge_files(id, &rot, running(world, at, rot.group));
                world.broken.extend(what.map(|what| Broken { judge: "rot in a snapshot is found", what }));
            }
        }
        if !well {
            rebuild(world, at);
        }
    };
    vec![Step::new(lasts, restart), Step::new(LOOK_AFTER, look)]
}

/// Whether the node runs, and has no trouble with anything on its disk. That it hears from nobody, or is behind, is none.
fn is_well(world: &World, at: usize) -> bool {
    let sound =
        |replica: &ReplicaStatus| replica.trouble.is_empty() || running(world, at, replica.partition.0).is_some();
    world.machines[at].node().is_some_and(|node| node.status().replicas.iter().all(sound))
}

/// The replica of a group that runs on a machine and is in no trouble.
fn running(world: &World, at: usize, group: u64) -> Option<u64> {
    let node = world.machines[at].node()?;
    if group == ROOT_PARTITION.0 {
        return node.root_replica().filter(|root| root.trouble().is_none()).map(|root| root.id().0);
    }
    let hosted = node.hosted(PartitionId(group))?;
    hosted.replica.trouble().is_none().then(|| hosted.replica.id().0)
}

/// The newest segment of a log, and how much of it is durable.
fn log_end(disk: &crate::disk::SimDisk) -> Option<(PathBuf, usize)> {
    let newest = disk.paths().into_iter().filter(|path| is_segment(path)).max()?;
    let bytes = disk.synced_bytes(&newest);
    Some((newest, bytes))
}

/// Whether it is a file of a whole snapshot: what is in the making, or on its way out, has a name that begins with a word.
fn is_of_snapshot(path: &Path) -> bool {
    let name = path.iter().nth(2).and_then(|name| name.to_str());
    path.iter().count() == 4 && name.is_some_and(|name| name.starts_with(|first: char| first.is_ascii_digit()))
}

fn is_segment(path: &Path) -> bool {
    path.starts_with("wal") && path.extension().is_some_and(|end| end == "wal")
}

/// A file of the log, and how many of its first bytes are attested as durable.
fn some_segment(disk: &crate::disk::SimDisk, chance: &Chance) -> Option<(PathBuf, usize)> {
    let segments: Vec<(PathBuf, usize)> = disk
        .paths()
        .into_iter()
        .filter(|path| is_segment(path))
        .map(|path| {
            let attested = disk.synced_bytes(&path).saturating_sub(UNATTESTED);
            (path, attested)
        })
        .filter(|(_, attested)| *attested >= SECTOR)
        .collect();
    (!segments.is_empty()).then(|| chance.pick(&segments).clone())
}
