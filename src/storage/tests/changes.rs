//! Records that changes rewrite: in one batch with the change, whole or not at all.

use parlor_actors::port::{Rewrite, Run, Target};
use parlor_protocol::Changed;

use super::*;

fn message(room: &Loaded, seq: Seq, payload: &str, revision: Seq) -> bytes::Bytes {
    let changed = Changed { revision, ..Changed::default() };
    changed.with_extensions(|extensions| {
        let deliver = Deliver {
            room: room.room,
            seq,
            time: seq,
            sender: "ann",
            device_tag: DeviceTag(1),
            nonce: seq,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            expires: if seq == 1 { 77 } else { 0 },
            count: seq,
            content_type: ContentType::TEXT,
            payload: payload.as_bytes(),
            extensions,
        };
        to_bytes(0, &deliver)
    })
}

fn rewrite(room: &Loaded, seq: Seq, revision: Seq, payload: &str, notes: &'static str) -> Rewrite {
    Rewrite { seq, revision, frame: message(room, seq, payload, revision), notes: notes.into() }
}

impl Rig {
    /// Appends one record that rewrites others.
    fn change(&self, room: &Loaded, seq: Seq, rewrites: Vec<Rewrite>) {
        let frames = message(room, seq, "", 0);
        let record = AppendRecord {
            end: u32::try_from(frames.len()).unwrap(),
            expires: if seq == 1 { 77 } else { 0 },
            device: DeviceKey { user: "ann".parse().unwrap(), tag: DeviceTag(1) },
            slot: 0,
            answer: Answer { nonce: seq, seq, time: seq, content_hash: 0, count: seq },
        };
        self.store.append(vec![Append {
            room: room.room,
            generation: room.generation,
            epoch: room.epochs.last().unwrap().epoch,
            durability: room.options.durability,
            first: seq,
            frames,
            records: vec![record],
            rewrites,
            place: self.store.budget().take(1).unwrap(),
            commits: Arc::new(Teller(self.tell.clone())),
        }]);
    }

    fn target(&self, room: RoomNumber, seq: Seq) -> Option<Target> {
        let (told, answer) = channel();
        self.store.target(room, seq, Box::new(move |target| told.send(target).unwrap()));
        answer.recv().unwrap().unwrap()
    }

    fn settled(&self) -> Event {
        loop {
            match self.next() {
                Event::Write | Event::Sync | Event::Loaded => {}
                event => return event,
            }
        }
    }
}

fn target(room: &Loaded, seq: Seq, revision: Seq, payload: &str, notes: &'static str) -> Option<Target> {
    Some(Target { frame: message(room, seq, payload, revision), notes: notes.into() })
}

#[test]
fn a_rewrite_is_stored_with_its_change_and_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let room = rig.try_load("s", Durability::Synced).unwrap();
    let number = room.room;
    rig.change(&room, 1, vec![]);
    rig.change(&room, 2, vec![rewrite(&room, 1, 2, "once", "who")]);
    // All of one turn: what is rewritten was gathered and not written, and is rewritten twice, and within one append.
    rig.one_turn(|| {
        rig.change(&room, 3, vec![]);
        rig.change(&room, 4, vec![rewrite(&room, 3, 4, "once", "")]);
        rig.change(&room, 5, vec![rewrite(&room, 3, 5, "twice", "them"), rewrite(&room, 1, 5, "twice", "")]);
    });
    while rig.settled() != Event::Committed(number.0, 5) {}
    drop(rig);

    let rig = Rig::open(dir.path());
    let again = rig.try_load("s", Durability::Synced).unwrap();
    assert_eq!((again.tail, &again.epochs), (5, &room.epochs));
    assert_eq!(rig.target(number, 1), target(&room, 1, 5, "twice", ""));
    assert_eq!(rig.target(number, 3), target(&room, 3, 5, "twice", "them"));
    assert_eq!(rig.target(number, 6), None);
    // Pages hold frames and nothing of the notes; the record's expiry stays its own.
    let Records { runs, .. } = rig.read(number).unwrap();
    let frames = |seqs: &[(Seq, Seq)]| -> bytes::Bytes {
        let text = |revision| if revision == 5 { "twice" } else { "" };
        seqs.iter()
            .map(|(seq, revision)| message(&room, *seq, text(*revision), *revision))
            .collect::<Vec<_>>()
            .concat()
            .into()
    };
    let all = [(1, 5), (2, 0), (3, 5), (4, 0), (5, 0)];
    assert_eq!(runs[0], Run::Frames { first: 1, last: 5, frames: frames(&all) });
    let (told, answer) = channel();
    let read = Read {
        room: number,
        start: 1,
        end: 5,
        direction: Direction::Forward,
        records_max: 9,
        bytes_max: 9_999,
        now: 77,
    };
    rig.store.read(read, Box::new(move |records| told.send(records).unwrap()));
    let Records { runs, .. } = answer.recv().unwrap().unwrap();
    assert_eq!(runs[1], Run::Frames { first: 2, last: 5, frames: frames(&all[1..]) });
}

#[test]
fn a_change_whose_write_fails_leaves_its_target_as_it_was() {
    for fault in [Fault::Write, Fault::Panic] {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::open(dir.path());
        let room = rig.try_load("s", Durability::Synced).unwrap();
        rig.change(&room, 1, vec![]);
        assert_eq!(rig.settled(), Event::Committed(room.room.0, 1));
        rig.faults.send(fault).unwrap();
        rig.change(&room, 2, vec![rewrite(&room, 1, 2, "never", "who")]);
        assert!(matches!(rig.settled(), Event::Failed(..)));
        drop(rig);
        let rig = Rig::open(dir.path());
        assert_eq!(rig.try_load("s", Durability::Synced).unwrap().tail, 1);
        assert_eq!(rig.target(room.room, 1), target(&room, 1, 0, "", ""));
    }
}

#[test]
fn what_was_swept_meanwhile_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let room = rig.try_load("s", Durability::Synced).unwrap();
    rig.change(&room, 1, vec![]);
    rig.change(&room, 2, vec![]);
    while rig.settled() != Event::Committed(room.room.0, 2) {}
    drop(rig);
    let (db, _) = db::open(&StoreConfig::new(dir.path())).unwrap();
    db.rocks().delete_cf(db.family(schema::Family::Log), schema::log_key(room.room, 1)).unwrap();
    drop(db);
    let rig = Rig::open(dir.path());
    let room = rig.try_load("s", Durability::Synced).unwrap();
    rig.change(&room, 3, vec![rewrite(&room, 1, 3, "back", ""), rewrite(&room, 2, 3, "kept", "")]);
    assert_eq!(rig.settled(), Event::Committed(room.room.0, 3));
    assert_eq!((rig.target(room.room, 1), rig.target(room.room, 2)), (None, target(&room, 2, 3, "kept", "")));
}

#[test]
fn a_rewrite_that_is_not_of_one_of_its_changes_is_refused() {
    for wrong in [(1, 1), (1, 3), (2, 2), (0, 2)] {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::open(dir.path());
        let room = rig.try_load("s", Durability::Synced).unwrap();
        rig.change(&room, 1, vec![]);
        assert_eq!(rig.settled(), Event::Committed(room.room.0, 1));
        let (seq, revision) = wrong;
        let mut bad = rewrite(&room, seq, revision, "bad", "");
        if seq == 0 {
            bad.seq = 1; // The frame is another's.
        }
        rig.change(&room, 2, vec![bad]);
        assert!(matches!(rig.settled(), Event::Failed(..)), "{wrong:?}");
        assert_eq!(rig.target(room.room, 1), target(&room, 1, 0, "", ""));
    }
}

/// Whether any file of a store holds these bytes.
fn files_hold(dir: &Path, needle: &[u8]) -> bool {
    let files = std::fs::read_dir(dir).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap_or_default());
    files.into_iter().any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
}

#[test]
fn what_is_purged_is_in_no_file_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let room = rig.try_load("s", Durability::Synced).unwrap();
    let secret = "qX7zKw02Vt";
    for seq in [1, 2, 3] {
        rig.change(&room, seq, vec![]);
    }
    rig.change(&room, 4, vec![rewrite(&room, 2, 4, secret, "")]);
    while rig.settled() != Event::Committed(room.room.0, 4) {}
    assert!(files_hold(dir.path(), secret.as_bytes()), "the test looks where it lies");
    let purge = || {
        let (told, answer) = channel();
        rig.store.purge(room.room, 2, 2, Box::new(move |outcome| told.send(outcome).unwrap()));
        answer.recv().unwrap().unwrap();
    };
    purge();
    assert!(files_hold(dir.path(), secret.as_bytes()), "it is what the message says");
    rig.change(&room, 5, vec![rewrite(&room, 2, 5, "", "")]);
    while rig.settled() != Event::Committed(room.room.0, 5) {}
    purge();
    assert!(!files_hold(dir.path(), secret.as_bytes()));
    assert_eq!(rig.target(room.room, 2), target(&room, 2, 5, "", ""));
}

#[test]
fn what_a_change_of_options_deletes_does_not_come_back_with_a_rewrite_of_the_same_turn() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let create = Some(RoomOptions { records_max: 2, ..RoomOptions::default() });
    let load = Load { name: "s".parse().unwrap(), create };
    let room = forgetting::ask(|reply| rig.store.load(load, reply)).unwrap();
    (1..=3).for_each(|seq| rig.change(&room, seq, vec![]));
    // Its channel has heard of the third and not of the fourth: it shows the second, and has it edited.
    rig.one_turn(|| {
        rig.change(&room, 4, vec![]);
        let what = What::Configure(RoomOptions::default());
        let change = RoomChange { name: "s".parse().unwrap(), by: Asker::Host, at: 0, members_max: 9, what };
        rig.store.change(change, Box::new(|changed| assert!(matches!(changed, Ok(Ok(_))), "{changed:?}")));
        rig.change(&room, 5, vec![rewrite(&room, 2, 5, "again", "")]);
    });
    while rig.settled() != Event::Committed(room.room.0, 5) {}
    assert_eq!((rig.target(room.room, 1), rig.target(room.room, 2)), (None, None), "no trim would come by it again");
    let again = rig.try_load("s", Durability::Synced).unwrap();
    assert_eq!((again.first, again.trimmed, again.tail), (3, 3, 5));
}
