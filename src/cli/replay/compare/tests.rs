use super::*;

/// A room behind seq 100 to which three people send, everything stored as it should be.
struct Case {
    names: Vec<Name>,
    sent: Vec<Said>,
    back: ReadBack,
}

/// By whom, what, and the seq and nonce of its ack.
type Said = (usize, &'static str, Option<(Seq, Nonce)>);

const TAG: DeviceTag = DeviceTag(7);

impl Case {
    fn new() -> Self {
        let names: Vec<Name> = ["ann", "bob", "eve"].iter().map(|name| name.parse().unwrap()).collect();
        let texts = [(0, "hi"), (1, "hello"), (0, "hi"), (0, ""), (2, "bye"), (1, "bye")];
        let mut case = Self {
            names,
            sent: vec![],
            back: ReadBack { base: 100, tail: 106, records: vec![], expired: HashSet::new() },
        };
        for (seq, (sender, text)) in (101..).zip(texts) {
            case.sent.push((sender, text, Some((seq, seq + 1000))));
            let sender = case.names[sender].clone();
            case.back.records.push(Record { seq, sender, tag: TAG, nonce: seq + 1000, payload: text.into() });
        }
        case
    }

    /// Checks after `spoil`; `want` is stored, duplicates, gaps, out of order, lost, mismatched.
    #[track_caller]
    fn check(spoil: impl FnOnce(&mut Self), want: [u64; 6], fault: &str) {
        let mut case = Self::new();
        spoil(&mut case);
        let sent: Vec<_> = case
            .sent
            .iter()
            .map(|&(sender, text, acked)| Sent {
                sender: &case.names[sender],
                tag: TAG,
                payload: text.as_bytes(),
                acked,
            })
            .collect();
        let mut faults = Faults::default();
        let f = compare(&sent, &case.back, |number| format!("line {number}"), &mut faults);
        assert_eq!([f.stored, f.duplicates, f.gaps, f.out_of_order, f.lost, f.mismatched], want);
        assert!(faults.to_string().starts_with(fault), "{faults}");
        assert_eq!(faults.is_empty(), fault.is_empty());
    }
}

#[test]
fn a_room_as_it_should_be_has_no_fault() {
    Case::check(|_| {}, [6, 0, 0, 0, 0, 0], "");
}

#[test]
fn a_message_stored_twice_is_found() {
    let again = |case: &mut Case, nonce| {
        let record = Record { seq: 107, nonce, ..case.back.records[1].clone() };
        case.back.records.push(record);
        case.back.tail = 107;
    };
    Case::check(|case| again(case, 1102), [7, 1, 0, 0, 0, 0], "107 and 102 are the same send of bob");
    Case::check(|case| again(case, 5), [7, 1, 0, 0, 0, 0], "107 is a second copy of a message of bob");
    Case::check(|case| case.back.records.push(case.back.records[1].clone()), [7, 1, 0, 0, 0, 0], "102 was read twice");
}

#[test]
fn a_hole_is_found() {
    Case::check(
        |case| case.back.records.iter_mut().skip(5).for_each(|record| record.seq += 1),
        [6, 0, 1, 0, 1, 0],
        "there is no 106",
    );
}

#[test]
fn a_loss_is_found() {
    Case::check(|case| drop(case.back.records.remove(2)), [5, 0, 1, 0, 1, 0], "there is no 103");
    Case::check(
        |case| {
            case.back.records.truncate(5);
            case.back.tail = 105;
        },
        [5, 0, 0, 0, 1, 0],
        "line 5: acknowledged as 106, but not there",
    );
    Case::check(|case| case.sent[2].2 = Some((101, 1101)), [6, 0, 0, 0, 1, 0], "line 2: acknowledged as 101, but");
}

#[test]
fn a_swap_is_found() {
    Case::check(
        |case| {
            let (one, two) = (case.sent[0].2, case.sent[3].2);
            (case.sent[0].2, case.sent[3].2) = (two, one);
            case.back.records[0].payload = "".into();
            case.back.records[3].payload = "hi".into();
        },
        [6, 0, 0, 2, 0, 0],
        "line 2: stored as 103, but an earlier line of the same nick as 104",
    );
    Case::check(
        |case| {
            let (one, two) = (case.back.records[0].seq, case.back.records[1].seq);
            (case.back.records[0].seq, case.back.records[1].seq) = (two, one);
        },
        [6, 0, 0, 0, 0, 2],
        "line 0: 101 is not what was sent",
    );
}

#[test]
fn a_change_is_found() {
    Case::check(|case| case.back.records[4].payload = "BYE".into(), [6, 0, 0, 0, 0, 1], "line 4: 105 is not what");
    Case::check(|case| case.back.records[4].sender = case.names[0].clone(), [6, 0, 0, 0, 0, 1], "line 4: 105 is not");
    Case::check(|case| case.back.records[4].tag = DeviceTag(8), [6, 0, 0, 0, 0, 1], "line 4: 105 is not");
}

#[test]
fn a_message_without_ack_may_be_there_once_and_a_stranger_s_may_not() {
    Case::check(|case| case.sent[4].2 = None, [6, 0, 0, 0, 0, 0], "");
    Case::check(
        |case| {
            let stranger = Record { seq: 107, tag: DeviceTag(9), nonce: 1, ..case.back.records[0].clone() };
            case.back.records.push(stranger);
            case.back.tail = 107;
        },
        [7, 0, 0, 0, 0, 1],
        "107 was never sent",
    );
}
