//! Whether what a replica finds of itself at a start can be what it left. Log and snapshots are written apart, so a crash
//! leaves many combinations; most losses leave one that no crash can, and those are refused: a replica that has forgotten
//! a vote could vote twice, one that has forgotten entries could take part in a quorum that loses what was acknowledged.
//!
//! What is written in which order:
//! 1. At its first start a replica saves its first vote (term 0, for itself: what Raft takes for no vote), then the file
//!    `replica` beside its snapshots. So where that file is, a vote must be; where a vote is, the file may lack.
//! 2. A vote is durable before anything of its term: entries, a snapshot's first byte, a commit position. So no term
//!    anywhere is above the vote's.
//! 3. A snapshot is durable before the log is purged up to it. So the purge point is never beyond the snapshot.
//! 4. Entries come before the commit position that covers them, in one queue; an installed snapshot comes before the
//!    commit position at its end. So the commit position is at most at the end of the log or of the snapshot.
//!
//! Hence, with P the purge point, S the snapshot's end, L the log's end and C the commit position:
//!
//! | found | verdict |
//! |---|---|
//! | file `replica` and no vote | refused: the log lost the group |
//! | no vote, but a snapshot or entries | refused: the same |
//! | the file is another replica's | refused: ids are never reused |
//! | a term above the vote's | refused: the log lost its newest votes |
//! | P > S, or P and no S | refused: entries are missing |
//! | the first entry does not follow P | refused: entries are missing |
//! | C > L and C > S | refused: entries are missing |
//! | the entry at C has another term than C | refused: the log is not the one that C was written of |
//! | S > L | a crash after an install (or an own snapshot whose last entries were committed by others first): legal, the log begins after S |
//! | S <= L, the entry at S has another term | a crash between an install and the cut of a tail that never was committed: legal, the log is emptied and begins after S |
//! | S <= L otherwise, any C | legal |
//!
//! What this cannot see: a log that lost its newest part and nothing before, with no snapshot and no commit position of
//! that part. The log's own chain of segments guards against that (`wal`).

use std::fmt::Display;
use std::io;
use std::path::Path;

use stoa_env::Disk;
use stoa_protocol::{PartitionId, ReplicaId};

use crate::life::{Life, read_life, write_life};
use crate::log::GroupLog;
use crate::snapshots::reach;
use crate::types::{LogId, SnapshotMeta, Vote};

/// What of a group's log the verdict depends on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ends {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    /// The first entry.
    pub first: Option<LogId>,
    /// The last entry, or the purge point.
    pub last: Option<LogId>,
    pub committed: Option<LogId>,
    /// The entry at the snapshot's end, if it is in the log.
    pub at_snapshot: Option<LogId>,
    /// The entry at the commit position, if it is in the log.
    pub at_committed: Option<LogId>,
}

/// What to do with a log that may be the replica's own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seam {
    /// Go on with it.
    Holds,
    /// Empty it: it begins after the snapshot.
    Restart,
}

/// The table above, but for the file.
pub(crate) fn judge(ends: &Ends, covered: Option<LogId>) -> Result<Seam, String> {
    let Some(vote) = &ends.vote else {
        return match (ends.last, covered, ends.committed) {
            (None, None, None) => Ok(Seam::Holds),
            (last, covered, committed) => Err(format!(
                "it has a log up to {last:?}, committed up to {committed:?}, and a snapshot up to {covered:?}, and no vote"
            )),
        };
    };
    let term = vote.leader_id.term;
    for id in [ends.purged, ends.last, ends.committed, covered].into_iter().flatten() {
        if id.leader_id.term > term {
            return Err(format!("its vote is of term {term}, and something of it is at {id}: newer votes are lost"));
        }
    }
    if reach(ends.purged.as_ref()) > reach(covered.as_ref()) {
        return Err(format!("its log begins after {:?}, and the snapshot ends at {covered:?}", ends.purged));
    }
    let after_purged = ends.purged.map_or(0, |purged| purged.index + 1);
    if let Some(first) = ends.first.filter(|first| first.index != after_purged) {
        return Err(format!("its log begins at {first}, where {after_purged} must come next"));
    }
    let index = |id: Option<LogId>| id.map(|id| id.index);
    if index(ends.committed) > index(ends.last) && index(ends.committed) > index(covered) {
        return Err(format!("{:?} was committed, and its log ends at {:?}", ends.committed, ends.last));
    }
    if ends.at_snapshot.is_some() && ends.at_snapshot != covered {
        // Only a tail that never was committed may go.
        if index(ends.committed) > index(covered) {
            let (committed, at) = (ends.committed, ends.at_snapshot);
            return Err(format!("{committed:?} was committed after {at:?}, where the snapshot ends at {covered:?}"));
        }
        return Ok(Seam::Restart);
    }
    if ends.at_committed.is_some() && ends.at_committed != ends.committed {
        return Err(format!("{:?} was committed, and its log has {:?} there", ends.committed, ends.at_committed));
    }
    Ok(Seam::Holds)
}

/// Checks what was found, makes it whole where a crash left it half done, and at a replica's first start leaves the marks
/// that later starts are checked against. Nothing of the replica speaks before this has returned.
pub(crate) async fn check_seam<D: Disk>(
    disk: &D,
    dir: &Path,
    partition: PartitionId,
    id: ReplicaId,
    log: &mut GroupLog,
    snapshot: Option<&SnapshotMeta>,
) -> io::Result<()> {
    let refused = |why: &dyn Display| {
        let text = format!("partition {partition}: {why}: entries or votes are missing; replace this replica");
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let covered = snapshot.and_then(|meta| meta.last_log_id);
    let ends = log.ends(covered);
    let marked = read_life(disk, dir, partition).await?;
    let begun = match marked {
        Some(Life::Lives(other)) if other == id => true,
        // Its files are to be empty; that they are is checked below.
        Some(Life::Begins(other)) if other == id => false,
        None => false,
        Some(life) => return Err(refused(&format!("these are the files of {life}, and this is replica {id}"))),
    };
    if begun && ends.vote.is_none() {
        return Err(refused(&"the replica has been here before, and the log knows nothing of it"));
    }
    if judge(&ends, covered).map_err(|why| refused(&why))? == Seam::Restart {
        let covered = covered.expect("a log is emptied where it contradicts a snapshot");
        tracing::warn!(partition = partition.0, %covered, "the log is emptied: a snapshot was installed over its tail");
        log.restart_after(covered).await?;
    }
    if ends.vote.is_none() {
        log.save_first_vote(id).await?;
    }
    match begun {
        true => Ok(()),
        false => write_life(disk, dir, partition, Life::Lives(id)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::log_id;

    fn ends(vote: u64, purged: Option<(u64, u64)>, entries: &[(u64, u64)], committed: Option<(u64, u64)>) -> Ends {
        let id = |(term, index)| log_id(term, index);
        let at = |place: Option<LogId>| {
            let index = place?.index;
            entries.iter().find(|(_, i)| *i == index).map(|&(term, index)| log_id(term, index))
        };
        let (purged, committed) = (purged.map(id), committed.map(id));
        Ends {
            vote: Some(Vote::new(vote, 1)),
            purged,
            first: entries.first().copied().map(id),
            last: entries.last().copied().map(id).or(purged),
            committed,
            at_snapshot: None,
            at_committed: at(committed),
        }
    }

    fn verdict(mut ends: Ends, covered: Option<(u64, u64)>, at_snapshot: Option<(u64, u64)>) -> Result<Seam, String> {
        ends.at_snapshot = at_snapshot.map(|(term, index)| log_id(term, index));
        judge(&ends, covered.map(|(term, index)| log_id(term, index)))
    }

    #[test]
    fn what_a_crash_can_leave_is_taken() {
        let tail = [(1, 5), (2, 6), (2, 7)];
        let log = |committed| ends(2, Some((1, 4)), &tail, committed);
        assert_eq!(judge(&Ends::default(), None), Ok(Seam::Holds), "a first start");
        assert_eq!(judge(&ends(0, None, &[], None), None), Ok(Seam::Holds), "a start after the first vote");
        assert_eq!(verdict(ends(0, None, &[(0, 0)], None), None, None), Ok(Seam::Holds), "formed, not elected");
        for committed in [None, Some((1, 4)), Some((2, 6)), Some((2, 7))] {
            assert_eq!(verdict(log(committed), Some((1, 4)), None), Ok(Seam::Holds));
            assert_eq!(verdict(log(committed), Some((2, 6)), Some((2, 6))), Ok(Seam::Holds), "built and not purged");
            assert_eq!(verdict(log(committed), Some((2, 9)), None), Ok(Seam::Holds), "installed and not purged");
        }
        assert_eq!(verdict(log(Some((2, 9))), Some((2, 9)), None), Ok(Seam::Holds), "committed by the install");
        let mut other = ends(3, Some((1, 4)), &tail, Some((1, 5)));
        assert_eq!(
            verdict(other.clone(), Some((3, 6)), Some((2, 6))),
            Ok(Seam::Restart),
            "over a tail never committed"
        );
        other.committed = Some(log_id(3, 6));
        other.at_committed = Some(log_id(2, 6));
        assert_eq!(verdict(other, Some((3, 6)), Some((2, 6))), Ok(Seam::Restart), "and the commit position followed");
    }

    #[test]
    fn what_no_crash_can_leave_is_refused() {
        let tail = [(1, 5), (2, 6), (2, 7)];
        let log = |committed| ends(2, Some((1, 4)), &tail, committed);
        let cases = [
            (log(None), None, "begins after"),
            (log(None), Some((1, 3)), "begins after"),
            (ends(1, Some((1, 4)), &tail, None), Some((1, 4)), "newer votes are lost"),
            (ends(2, None, &[], None), Some((3, 9)), "newer votes are lost"),
            (ends(2, None, &[], Some((3, 9))), None, "newer votes are lost"),
            (log(Some((2, 8))), Some((1, 4)), "was committed"),
            (log(Some((1, 6))), Some((1, 4)), "was committed"),
            (ends(2, Some((1, 4)), &tail[1..], None), Some((1, 4)), "must come next"),
            (ends(2, None, &tail, None), Some((1, 4)), "must come next"),
        ];
        for (ends, covered, wanted) in cases {
            let refused = verdict(ends.clone(), covered, None);
            assert!(refused.as_ref().is_err_and(|why| why.contains(wanted)), "{ends:?} {covered:?}: {refused:?}");
        }
        let lost = Ends { last: Some(log_id(1, 1)), ..Ends::default() };
        assert!(judge(&lost, None).unwrap_err().contains("no vote"));
        assert!(judge(&Ends::default(), Some(log_id(1, 1))).unwrap_err().contains("no vote"));
    }
}
