//! Changes of messages that the room keeps no longer: unreadable like what has expired.
//!
//! A room that keeps so many records or bytes lets go of a message before the edit of it, which is the newer record. The
//! edit still says what the message said. So a change is readable as long as what it refers to may be: wherever records
//! are read, those that refer below the oldest readable seq are hidden, at once when that rises. The store deletes them
//! later.

use bytes::Bytes;
use parlor_protocol::{
    Header, Seq,
    frame::HEADER_BYTES,
    message::{Deliver, GapReason},
    peek,
};

use super::position::Extent;
use crate::port::{Records, Run};

/// Whether a record changes a message that is gone, in a room whose oldest readable seq is `first`.
#[must_use]
pub fn is_orphan(deliver: &Deliver<'_>, first: Seq) -> bool {
    deliver.kind.is_change() && deliver.refers_to < first
}

/// Makes gaps of the orphans among what was found.
pub fn hide(records: &mut Records, extent: &Extent) {
    if extent.first <= 1 || !records.runs.iter().any(|run| has_orphans(run, extent.first)) {
        return;
    }
    let mut runs = Vec::with_capacity(records.runs.len() + 2);
    for run in std::mem::take(&mut records.runs) {
        match run {
            Run::Gap { from, to, why } => add_gap(&mut runs, from, to, why),
            Run::Frames { first, last, frames } => {
                for (seq, frame) in (first..=last).zip(split(&frames)) {
                    if orphan(&frame, extent.first) {
                        add_gap(&mut runs, seq, seq, extent.why_gone(seq));
                    } else {
                        add_frame(&mut runs, seq, frame, &frames);
                    }
                }
            }
        }
    }
    records.runs = runs;
}

fn has_orphans(run: &Run, first: Seq) -> bool {
    matches!(run, Run::Frames { frames, .. } if split(frames).any(|frame| orphan(&frame, first)))
}

fn orphan(frame: &[u8], first: Seq) -> bool {
    let target = frame.get(HEADER_BYTES..).and_then(peek::changes);
    target.is_some_and(|target| target < first)
}

/// The frames of a run.
fn split(frames: &Bytes) -> impl Iterator<Item = Bytes> {
    let mut rest = frames.clone();
    std::iter::from_fn(move || {
        let header = Header::from_bytes(rest.first_chunk()?);
        let size = (HEADER_BYTES + header.len as usize).min(rest.len());
        Some(rest.split_to(size))
    })
}

/// Gaps side by side become one: a page tells of so many only.
fn add_gap(runs: &mut Vec<Run>, from: Seq, to: Seq, why: GapReason) {
    match runs.last_mut() {
        Some(Run::Gap { to: end, why: before, .. }) => {
            *end = to;
            if *before == GapReason::EXPIRED {
                *before = why;
            }
        }
        _ => runs.push(Run::Gap { from, to, why }),
    }
}

/// Adds a frame out of `all` to the last run, which shares their buffer.
fn add_frame(runs: &mut Vec<Run>, seq: Seq, frame: Bytes, all: &Bytes) {
    if let Some(Run::Frames { last, frames, .. }) = runs.last_mut()
        && let (Some(start), Some(end)) = (offset(frames, all), offset(&frame, all))
        && start + frames.len() == end
    {
        (*last, *frames) = (seq, all.slice(start..end + frame.len()));
        return;
    }
    runs.push(Run::Frames { first: seq, last: seq, frames: frame });
}

/// Where a part of a buffer begins; `None` if it is none.
fn offset(part: &Bytes, all: &Bytes) -> Option<usize> {
    let at = (part.as_ptr() as usize).checked_sub(all.as_ptr() as usize)?;
    (at + part.len() <= all.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use parlor_protocol::{
        DeviceTag, Extensions, RoomNumber,
        message::{ContentType, RecordKind},
        to_bytes,
    };

    use super::*;

    fn frame(seq: Seq, kind: RecordKind, refers_to: Seq) -> Bytes {
        let deliver = Deliver {
            room: RoomNumber(1),
            seq,
            time: 7,
            sender: "ann",
            device_tag: DeviceTag(1),
            nonce: seq,
            kind,
            refers_to,
            expires: 0,
            count: 1,
            content_type: ContentType::TEXT,
            payload: b"body",
            extensions: Extensions::default(),
        };
        to_bytes(0, &deliver)
    }

    /// Records from `first` on; each is what it refers to, 0 for a message.
    fn run(first: Seq, targets: &[Seq]) -> Run {
        let kind = |target| if target == 0 { RecordKind::MESSAGE } else { RecordKind::EDIT };
        let frames: Vec<Bytes> = targets.iter().zip(first..).map(|(at, seq)| frame(seq, kind(*at), *at)).collect();
        Run::Frames { first, last: first + targets.len() as u64 - 1, frames: frames.concat().into() }
    }

    fn gap(from: Seq, to: Seq) -> Run {
        Run::Gap { from, to, why: GapReason::EXPIRED }
    }

    #[track_caller]
    fn check(oldest: Seq, runs: Vec<Run>, want: Vec<Run>) {
        let extent = Extent { epochs: Vec::new(), first: oldest, trimmed: oldest, tail: 99 };
        let mut records = Records { runs, next: Some(50) };
        hide(&mut records, &extent);
        assert_eq!(records, Records { runs: want, next: Some(50) });
    }

    #[test]
    fn changes_of_what_is_gone_are_gaps() {
        check(1, vec![run(5, &[0, 1, 0])], vec![run(5, &[0, 1, 0])]);
        check(4, vec![run(5, &[0, 4, 5])], vec![run(5, &[0, 4, 5])]);
        check(5, vec![run(5, &[0, 4, 5])], vec![run(5, &[0]), gap(6, 6), run(7, &[5])]);
        check(5, vec![run(6, &[1, 2, 0, 0, 5, 3])], vec![gap(6, 7), run(8, &[0, 0, 5]), gap(11, 11)]);
    }

    #[test]
    fn gaps_side_by_side_are_one() {
        let runs = vec![gap(5, 6), run(7, &[1, 0, 1]), gap(10, 12), run(13, &[2])];
        check(5, runs, vec![gap(5, 7), run(8, &[0]), gap(9, 13)]);
        // What lies below the oldest readable seq was pushed out, and so at least one of these was.
        let trimmed = Run::Gap { from: 3, to: 6, why: GapReason::TRIMMED };
        check(5, vec![run(3, &[1, 1]), gap(5, 5), run(6, &[1])], vec![trimmed]);
    }

    #[test]
    fn what_is_no_change_is_no_orphan_whatever_it_refers_to() {
        let frames = frame(6, RecordKind(0x77), 1);
        let odd = Run::Frames { first: 6, last: 6, frames };
        check(5, vec![odd.clone()], vec![odd]);
    }
}
