//! A ring of a few records, and what it says of them.

use super::*;

fn ring() -> Ring {
    let mut ring = Ring::new(5, 4, 100);
    for (at, frame) in ["e", "f", "g", "h", "i"].into_iter().enumerate() {
        ring.push(if at == 2 { 1_000 } else { 0 }, frame.as_bytes());
    }
    ring
}

fn frames(first: Seq, last: Seq, text: &'static str) -> Run {
    Run::Frames { first, last, frames: Bytes::from_static(text.as_bytes()) }
}

#[test]
fn the_oldest_fall_off_by_number_and_by_bytes() {
    let mut ring = ring();
    assert_eq!((ring.first(), ring.last()), (6, 9));
    ring.push(0, &[b'x'; 99]);
    assert_eq!((ring.first(), ring.last()), (9, 10), "99 bytes leave room for one");
    ring.push(0, &[b'x'; 200]);
    assert_eq!((ring.first(), ring.last()), (11, 11), "the newest always stays");
}

#[test]
fn the_oldest_fall_off_when_told() {
    let mut ring = ring();
    ring.drop_below(3);
    assert_eq!((ring.first(), ring.last()), (6, 9));
    ring.drop_below(7);
    assert_eq!((ring.first(), ring.last()), (7, 9));
    let page = ring.read(7, 9, Direction::Forward, PageLimit { records: 9, bytes: 9 }, 0);
    assert_eq!(page.runs, [frames(7, 9, "ghi")]);
    ring.keep(2, 9);
    assert_eq!((ring.first(), ring.last()), (8, 9));
    ring.keep(0, 1);
    assert_eq!((ring.first(), ring.last()), (9, 9));
    ring.keep(1, 0);
    assert_eq!((ring.first(), ring.last()), (9, 9), "the newest stays");
    ring.drop_below(10);
    assert_eq!((ring.first(), ring.last()), (10, 9));
    ring.push(0, b"j");
    assert_eq!((ring.first(), ring.last()), (10, 10));
}

#[test]
fn what_it_may_hold_says_where_it_begins_and_what_is_not_needed_is_given_back() {
    let mut ring = Ring::new(1, 1_000, 1 << 20);
    for _ in 0..1_000 {
        ring.push(0, &[b'x'; 84]);
    }
    ring.rewrite(3, vec![b'y'; 100].into(), Bytes::new());
    let rewritten = 100 + REWRITTEN_OVERHEAD_BYTES;
    assert_eq!(ring.held_bytes(), 100 * 1_000 + rewritten);
    let cases = [
        (usize::MAX, 1),
        (ring.held_bytes(), 1),
        (ring.held_bytes() - 1, 2),
        (ring.held_bytes() - 200, 3),
        (ring.held_bytes() - 201, 4),
        (100 * 997, 4),
        (100, 1_000),
        (99, 1_001),
        (0, 1_001),
    ];
    for (bytes_most, first) in cases {
        assert_eq!(ring.first_within(bytes_most), first, "{bytes_most} bytes");
    }
    for bytes_most in [50_000, 9_000, 800, 0] {
        ring.drop_below(ring.first_within(bytes_most));
        ring.release();
        assert!(ring.held_bytes() <= bytes_most);
        let capacity = ring.frames.capacity() + ring.entries.capacity() * size_of::<Entry>();
        assert!(capacity <= 2 * bytes_most + 2 * SPARE_LEAST, "{capacity} are kept for {bytes_most}");
    }
    ring.push(0, b"z");
    assert_eq!((ring.first(), ring.last()), (1_001, 1_001), "it goes on");
}

#[track_caller]
fn check(start: Seq, end: Seq, direction: Direction, limit: (u32, u32), now: u64, want: (Vec<Run>, Option<Seq>)) {
    let limit = PageLimit { records: limit.0, bytes: limit.1 };
    let got = ring().read(start, end, direction, limit, now);
    assert_eq!((got.runs, got.next), want);
}

#[test]
fn a_page_ends_at_its_limits() {
    use Direction::{Backward, Forward};
    check(6, 9, Forward, (9, 9), 0, (vec![frames(6, 9, "fghi")], None));
    check(6, 9, Forward, (3, 9), 0, (vec![frames(6, 8, "fgh")], Some(9)));
    check(6, 9, Forward, (9, 2), 0, (vec![frames(6, 7, "fg")], Some(8)));
    check(6, 9, Forward, (9, 0), 0, (vec![frames(6, 6, "f")], Some(7)));
    check(9, 6, Backward, (9, 9), 0, (vec![frames(6, 9, "fghi")], None));
    check(9, 6, Backward, (3, 9), 0, (vec![frames(7, 9, "ghi")], Some(6)));
    check(8, 6, Backward, (2, 9), 0, (vec![frames(7, 8, "gh")], Some(6)));
    check(10, 9, Forward, (9, 9), 0, (vec![], None));
}

/// A frame of so many bytes behind its header, all of them `byte`.
fn frame(byte: u8, len: u8) -> Vec<u8> {
    let header = Header { len: len.into(), kind: 0x33, flags: 0, request: 0 };
    [&header.to_bytes()[..], &vec![byte; len.into()]].concat()
}

fn all(ring: &Ring) -> Bytes {
    let limit = PageLimit { records: 99, bytes: 9_999 };
    match &ring.read(ring.first(), ring.last(), Direction::Forward, limit, 0).runs[..] {
        [Run::Frames { frames, .. }] => frames.clone(),
        runs => panic!("{runs:?}"),
    }
}

#[test]
fn a_rewritten_record_is_read_anew_counts_in_bytes_and_falls_off_whole() {
    let mut ring = Ring::new(1, 9, 100);
    for byte in [b'a', b'b', b'c'] {
        ring.push(0, &frame(byte, 10));
    }
    ring.rewrite(2, frame(b'X', 15).into(), Bytes::from_static(b"who"));
    assert_eq!(all(&ring), [frame(b'a', 10), frame(b'X', 15), frame(b'c', 10)].concat());
    assert_eq!((ring.frame(2), ring.notes(2)), (Some(frame(b'X', 15).into()), Some(Bytes::from_static(b"who"))));
    assert!(!ring.frames.contains(&b'b'), "what was said before is kept nowhere");
    assert_eq!((ring.frame(4), ring.notes(1), ring.bytes()), (None, None, 66 + 27 + 3));
    // It is as large as it may be: a longer one throws the oldest out, and then goes itself with all of its bytes.
    ring.rewrite(2, frame(b'Y', 25).into(), Bytes::new());
    assert_eq!((ring.first(), ring.bytes()), (2, 44 + 37));
    ring.push(0, &frame(b'd', 30));
    assert_eq!(
        (ring.first(), ring.bytes(), all(&ring)),
        (3, 22 + 42, [frame(b'c', 10), frame(b'd', 30)].concat().into())
    );
    ring.rewrite(1, frame(b'Z', 1).into(), Bytes::new());
    assert_eq!((ring.first(), ring.bytes()), (3, 64), "what fell off is not rewritten here");
}

#[test]
fn a_refill_goes_in_front_as_far_as_there_is_room() {
    let past = [frame(b'a', 10), frame(b'b', 10), frame(b'c', 10)].concat();
    let with = |records_max, bytes_max| {
        let mut ring = Ring::new(4, records_max, bytes_max);
        ring.push(0, &frame(b'd', 10));
        ring.rewrite(4, frame(b'D', 10).into(), Bytes::new());
        ring.refill(&[7, 0, 0], &past);
        // It goes on as if they had always been there.
        ring.push(0, &frame(b'e', 10));
        ring
    };
    let whole = with(9, 999);
    assert_eq!((whole.first(), whole.last()), (1, 5));
    assert_eq!(all(&whole), [&past[..], &frame(b'D', 10), &frame(b'e', 10)].concat());
    assert_eq!(whole.read(1, 1, Direction::Forward, PageLimit { records: 1, bytes: 1 }, 7).runs.len(), 1);
    assert!(matches!(
        whole.read(1, 2, Direction::Forward, PageLimit { records: 9, bytes: 999 }, 7).runs[..],
        [Run::Gap { from: 1, to: 1, .. }, Run::Frames { first: 2, last: 2, .. }]
    ));
    assert_eq!(with(3, 999).first(), 3, "by number");
    let few = with(9, 44 + 22 + 22);
    assert_eq!((few.first(), all(&few)), (3, [frame(b'c', 10), frame(b'D', 10), frame(b'e', 10)].concat().into()));
}

#[test]
fn an_expired_beginning_ends_at_what_has_not_expired() {
    let mut ring = Ring::new(5, 9, 99);
    assert_eq!(ring.first_unexpired(10), 5);
    for expires in [10, 10, 20, 10, 0, 10] {
        ring.push(expires, b"x");
    }
    for (now, first) in [(9, 5), (10, 7), (19, 7), (20, 9), (99, 9)] {
        assert_eq!(ring.first_unexpired(now), first, "at {now}");
    }
    ring.drop_below(10);
    assert_eq!((ring.first(), ring.first_unexpired(9), ring.first_unexpired(10)), (10, 10, 11));
}

#[test]
fn what_expired_is_a_gap() {
    let gap = Run::Gap { from: 7, to: 7, why: GapReason::EXPIRED };
    let want = vec![frames(6, 6, "f"), gap.clone(), frames(8, 9, "hi")];
    check(6, 9, Direction::Forward, (9, 9), 1_000, (want, None));
    check(7, 7, Direction::Forward, (9, 9), 1_000, (vec![gap], None));
    check(7, 7, Direction::Forward, (9, 9), 999, (vec![frames(7, 7, "g")], None));
}
