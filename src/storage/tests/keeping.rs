//! What is loaded of a room that keeps only so many records, while the store still has more.

use super::*;

fn load(rig: &Rig, records_max: u64) -> Loaded {
    let (told, answer) = channel();
    let create = Some(RoomOptions { records_max, ..RoomOptions::default() });
    rig.store.load(Load { name: "room".parse().unwrap(), create }, Box::new(move |loaded| told.send(loaded).unwrap()));
    answer.recv().unwrap().unwrap()
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
