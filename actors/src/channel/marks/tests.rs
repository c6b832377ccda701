//! The truth table of unread, and users who come, go, read and are saved.

use super::*;
use crate::pools::Pool;

fn mark(seq: Seq, count: u64) -> Mark {
    Mark { seq, count }
}

/// Counts at the places that count as read, the room's count, what is unread.
#[track_caller]
fn check((read, sent, since, gone): (u64, u64, u64, u64), count: u64, want: u64) {
    let at = |count| mark(count * 2, count);
    let marks = Marks { read: at(read), delivered: at(u64::MAX / 2), sent: at(sent), since: Mark::default() };
    assert_eq!(
        unread(count, &marks, at(since), at(gone)),
        want,
        "read {read}, sent {sent}, since {since}, gone {gone}"
    );
}

#[test]
fn unread_is_what_came_behind_the_highest_place_that_counts_as_read() {
    check((0, 0, 0, 0), 0, 0);
    check((0, 0, 0, 0), 7, 7);
    check((3, 0, 0, 0), 7, 4);
    check((3, 5, 0, 0), 7, 2);
    check((3, 5, 6, 0), 7, 1);
    check((0, 0, 0, 6), 7, 1);
    check((3, 2, 1, 0), 7, 4);
    check((7, 0, 0, 0), 7, 0);
    // Marks of records that were lost, or are not committed yet.
    check((9, 0, 0, 0), 7, 0);
    check((0, 8, 0, 0), 7, 0);
    check((0, 0, 9, 0), 7, 0);
}

fn name(user: &str) -> Name {
    user.parse().unwrap()
}

const PHONE: DeviceTag = DeviceTag(1);
const LAPTOP: DeviceTag = DeviceTag(2);

fn read(seq: Seq) -> Marks {
    Marks { read: mark(seq, seq), ..Marks::default() }
}

/// Who sent nothing from the devices that are attached.
fn nothing(_: &Name, _: &[DeviceTag]) -> Mark {
    Mark::default()
}

/// Ann with her phone, whose marks are loaded.
fn users() -> Users<u32> {
    let mut users = Users::new(false, 0, Pool::new(99).share());
    users.attach(&name("ann"), PHONE);
    assert!(users.wants_load(&name("ann")), "the first loads");
    assert!(!users.wants_load(&name("ann")), "once");
    assert_eq!(users.wait(&name("ann"), 7), None);
    assert_eq!(users.loaded(&name("ann"), &read(3)), [7]);
    users
}

#[test]
fn marks_only_rise_and_only_what_rose_is_saved() {
    let (mut users, ann) = (users(), name("ann"));
    assert_eq!(users.wait(&ann, 8), Some(8));
    assert!(!users.raise(&ann, &read(2)), "below what the store had");
    assert!(!users.raise(&ann, &read(3)));
    assert_eq!(users.dirty(), 0);
    assert!(users.raise(&ann, &read(5)));
    assert_eq!(users.take_dirty(9, 9, nothing), [(ann.clone(), read(5))]);
    assert_eq!((users.dirty(), users.take_dirty(9, 9, nothing)), (0, vec![]));
    assert!(users.raise(&ann, &read(6)), "while the other is saved");
    assert_eq!(users.take_dirty(9, 9, nothing), [], "one after the other");
    users.saved(std::slice::from_ref(&ann), true);
    assert_eq!(users.take_dirty(9, 9, nothing), [(ann.clone(), read(6))]);
    users.saved(std::slice::from_ref(&ann), false);
    assert_eq!(users.take_dirty(9, 9, nothing), [(ann, read(6))], "what was not saved comes again");
}

#[test]
fn what_was_read_before_the_load_came_is_not_lost() {
    for (stored, want) in [(3, 5), (9, 9)] {
        let mut users = Users::<u32>::new(false, 0, Pool::new(99).share());
        let ann = name("ann");
        users.attach(&ann, PHONE);
        assert!(users.wants_load(&ann));
        assert!(users.raise(&ann, &read(5)));
        assert_eq!(users.take_dirty(9, 9, nothing), [], "the store may know more");
        users.loaded(&ann, &read(stored));
        assert_eq!(users.marks(&ann).unwrap().read.seq, want);
    }
}

#[test]
fn a_user_is_forgotten_when_the_last_device_is_gone_and_the_store_has_all() {
    let (mut users, ann) = (users(), name("ann"));
    users.attach(&ann, LAPTOP);
    users.raise(&ann, &read(5));
    users.detach(&ann, PHONE);
    assert_eq!(users.attached(&ann), [LAPTOP]);
    users.detach(&ann, PHONE);
    assert_eq!(users.attached(&ann), [LAPTOP], "a device that is not there does not leave");
    users.detach(&ann, LAPTOP);
    assert_eq!(users.len(), 1, "the store has not been told");
    assert_eq!(users.take_dirty(9, 9, nothing).len(), 1);
    assert_eq!(users.len(), 1, "nor has it answered");
    users.saved(&[ann], true);
    assert_eq!(users.len(), 0);
}

#[test]
fn what_was_sent_is_saved_with_the_rest_and_not_before_it_is_stored() {
    let (mut users, ann) = (users(), name("ann"));
    users.sent(&ann, mark(10, 8));
    assert_eq!(users.take_dirty(9, 9, nothing), [], "seq 10 is not stored yet");
    let want = Marks { sent: mark(10, 8), ..read(3) };
    assert_eq!(users.take_dirty(10, 9, nothing), [(ann.clone(), want)]);
    users.sent(&ann, mark(4, 4));
    assert_eq!((users.dirty(), users.marks(&ann).unwrap().sent.seq), (0, 10));
}

#[test]
fn who_stays_has_what_he_sent_saved_with_his_other_marks() {
    let (mut users, ann) = (users(), name("ann"));
    assert!(users.raise(&ann, &read(4)));
    let sent = |user: &Name, tags: &[DeviceTag]| {
        assert_eq!((user, tags), (&name("ann"), &[PHONE][..]));
        mark(6, 5)
    };
    assert_eq!(users.take_dirty(9, 9, sent), [(ann, Marks { sent: mark(6, 5), ..read(4) })]);
}

#[test]
fn a_room_without_a_store_keeps_some_who_left_and_saves_nothing() {
    let mut users = Users::<u32>::new(true, 2, Pool::new(99).share());
    for user in ["ann", "bob", "cid", "ann"] {
        let user = name(user);
        users.attach(&user, PHONE);
        assert!(!users.wants_load(&user));
        users.raise(&user, &read(5));
        users.detach(&user, PHONE);
    }
    assert_eq!((users.len(), users.dirty()), (2, 0));
    assert!(users.marks(&name("ann")).is_some() && users.marks(&name("cid")).is_some());
}

#[test]
fn a_user_stays_while_something_is_looked_for_on_his_behalf() {
    let (mut users, ann) = (users(), name("ann"));
    users.pin(&ann);
    users.detach(&ann, PHONE);
    assert_eq!(users.len(), 1);
    users.unpin(&ann);
    users.settle(&ann);
    assert_eq!(users.len(), 0);
}

#[test]
fn what_is_loaded_or_saved_while_a_membership_ends_is_not_taken_for_the_next() {
    let ann = name("ann");
    let mut users = Users::<()>::new(false, 0, Pool::new(99).share());
    users.attach(&ann, DeviceTag(1));
    assert!(users.wants_load(&ann));
    users.reset(&ann, false);
    let stored = Marks { read: mark(5, 5), delivered: mark(6, 6), sent: mark(4, 4), since: mark(1, 1) };
    users.loaded(&ann, &stored);
    assert_eq!(users.marks(&ann), Some(&Marks { sent: mark(4, 4), ..Marks::default() }), "read before it ended");
    // What is being saved ends without effect, whatever becomes of it.
    let read = Marks { read: mark(7, 7), ..Marks::default() };
    assert!(users.raise(&ann, &read));
    assert_eq!(users.take_dirty(9, 9, |_, _| Mark::default()).len(), 1);
    users.reset(&ann, true);
    users.saved(std::slice::from_ref(&ann), false);
    assert_eq!((users.dirty(), users.marks(&ann).unwrap().read), (0, Mark::default()));
    // Who may not be here marks nothing, until he may.
    assert!(!users.raise(&ann, &read));
    users.sent(&ann, mark(8, 8));
    assert_eq!(users.dirty(), 0);
    users.let_in(&ann);
    assert!(users.raise(&ann, &read));
    users.reset(&ann, true);
    users.detach(&ann, DeviceTag(1));
    assert_eq!(users.len(), 0, "nothing is left to be saved");
}
