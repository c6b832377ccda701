//! What has expired since it was read.

use bytes::Bytes;
use parlor_protocol::{Seq, UnixMillis, message::GapReason};

use super::{change::deliver_of, refill::frame_bytes};
use crate::port::{Records, Run};

/// Makes gaps of the records that have expired by `now`.
pub fn expire(records: &mut Records, now: UnixMillis) {
    for run in std::mem::take(&mut records.runs) {
        match run {
            Run::Frames { first, last, frames } => split(&mut records.runs, (first, last), &frames, now),
            gap @ Run::Gap { .. } => records.runs.push(gap),
        }
    }
}

/// Adds what is left of consecutive records, as runs and gaps.
fn split(runs: &mut Vec<Run>, (first, last): (Seq, Seq), frames: &Bytes, now: UnixMillis) {
    let (mut start, mut end, mut from) = (0, 0, first);
    for seq in first..=last {
        let rest = &frames[end..];
        // There is a whole frame for each seq.
        let frame = &rest[..frame_bytes(rest).unwrap_or(rest.len())];
        let expires = deliver_of(frame).map_or(0, |deliver| deliver.expires);
        let before = end;
        end += frame.len();
        if expires == 0 || expires > now {
            continue;
        }
        if from < seq {
            runs.push(Run::Frames { first: from, last: seq - 1, frames: frames.slice(start..before) });
        }
        (start, from) = (end, seq + 1);
        match runs.last_mut() {
            Some(Run::Gap { to, why: GapReason::EXPIRED, .. }) => *to = seq,
            _ => runs.push(Run::Gap { from: seq, to: seq, why: GapReason::EXPIRED }),
        }
    }
    if from <= last {
        runs.push(Run::Frames { first: from, last, frames: frames.slice(start..) });
    }
}

#[cfg(test)]
mod tests {
    use parlor_protocol::{
        DeviceTag, Extensions, RoomNumber,
        message::{ContentType, Deliver, RecordKind},
    };

    use super::*;

    fn frame(seq: Seq, expires: UnixMillis) -> Vec<u8> {
        let deliver = Deliver {
            room: RoomNumber(1),
            seq,
            time: 1,
            sender: "ann",
            device_tag: DeviceTag(1),
            nonce: seq,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            expires,
            count: seq,
            content_type: ContentType(0),
            payload: b"x",
            extensions: Extensions::default(),
        };
        parlor_protocol::to_bytes(0, &deliver).to_vec()
    }

    fn frames(first: Seq, expiries: &[UnixMillis]) -> Run {
        let all: Vec<Vec<u8>> = (first..).zip(expiries).map(|(seq, expires)| frame(seq, *expires)).collect();
        Run::Frames { first, last: first + all.len() as u64 - 1, frames: all.concat().into() }
    }

    #[test]
    fn what_has_expired_since_is_a_gap() {
        let gap = |from, to| Run::Gap { from, to, why: GapReason::EXPIRED };
        let all = || vec![gap(1, 2), frames(3, &[5, 0, 9, 5, 5, 7])];
        for (now, want) in [
            (4, all()),
            (5, vec![gap(1, 3), frames(4, &[0, 9]), gap(6, 7), frames(8, &[7])]),
            (7, vec![gap(1, 3), frames(4, &[0, 9]), gap(6, 8)]),
            (9, vec![gap(1, 3), frames(4, &[0]), gap(5, 8)]),
        ] {
            let mut records = Records { runs: all(), next: Some(9) };
            expire(&mut records, now);
            assert_eq!(records, Records { runs: want, next: Some(9) }, "at {now}");
        }
    }
}
