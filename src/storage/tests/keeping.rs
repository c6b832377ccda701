//! What is loaded of a room that keeps only so many records, while the store still has more.

use parlor_actors::members::{Asker, RoomChange, What};

use super::{forgetting::ask, *};

fn load(rig: &Rig, records_max: u64) -> Loaded {
    let create = Some(RoomOptions { records_max, ..RoomOptions::default() });
    ask(|reply| rig.store.load(Load { name: "room".parse().unwrap(), create }, reply)).unwrap()
}

#[test]
fn a_channel_is_told_of_all_that_is_there_and_where_the_room_stood_with_what_it_keeps_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let room = load(&rig, 10);
    (1..=30).for_each(|seq| rig.append(&room, seq));
    let loaded = load(&rig, 10);
    // Or what a room leaves behind that sleeps before there is much of it is never deleted.
    assert_eq!((loaded.first, loaded.trimmed, loaded.tail), (1, 1, 30));
    assert_eq!((loaded.gone_count, loaded.count), (20, 30));
}

#[test]
fn what_a_room_kept_no_longer_does_not_come_back_when_it_keeps_more() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let room = load(&rig, 10);
    (1..=30).for_each(|seq| rig.append(&room, seq));
    for (records_max, first) in [(20, 21), (0, 21), (5, 21), (0, 26)] {
        let options = RoomOptions { records_max, ..RoomOptions::default() };
        let (name, by, what) = ("room".parse().unwrap(), Asker::Host, What::Configure(options));
        let change = RoomChange { name, by, at: 1, members_max: 9, what };
        ask(|reply| rig.store.change(change, reply)).unwrap().unwrap();
        let loaded = load(&rig, 0);
        assert_eq!(
            (loaded.first, loaded.trimmed, loaded.tail),
            (first, first, 30),
            "after it was to keep {records_max}"
        );
    }
}
