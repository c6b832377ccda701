//! Devices that come, leave and are forgotten.

use parlor_protocol::DeviceTag;

use super::*;
use crate::pools::Pool;

fn key(user: &str) -> DeviceKey {
    DeviceKey { user: user.parse().unwrap(), tag: DeviceTag(1) }
}

#[test]
fn a_window_is_loaded_once_and_dropped_when_nothing_needs_it() {
    let mut devices = Devices::new(false, 0, Pool::new(99).share());
    assert!(devices.attach(&key("ann")), "the first subscriber loads");
    assert!(!devices.attach(&key("ann")), "the second does not");
    assert!(devices.wants_rights(&key("ann"), None) && !devices.wants_rights(&key("ann"), None));
    assert_eq!(devices.rights_loaded(&key("ann"), Rights::default()), []);
    assert_eq!(devices.wait(&key("ann"), 1), None);
    assert_eq!(devices.loaded(&key("ann"), Vec::new()), [1]);
    assert_eq!(devices.wait(&key("ann"), 2), Some(2));
    let answer = Answer { nonce: 1, seq: 1, time: 1, content_hash: 1, count: 1 };
    assert_eq!(devices.accept(&key("ann"), answer, 128), Some(0));
    devices.detach(&key("ann"));
    devices.detach(&key("ann"));
    assert_eq!(devices.len(), 1, "a record is on its way, and the store does not know its answer yet");
    devices.committed(&key("ann"));
    assert_eq!(devices.len(), 0);
}

#[test]
fn what_was_told_of_rights_is_newer_than_what_was_read() {
    let mut devices = Devices::new(true, 1, Pool::new(99).share());
    assert!(!devices.attach(&key("ann")));
    assert!(devices.wants_rights(&key("ann"), None));
    assert_eq!(devices.wait(&key("ann"), 1), None);
    let rights = |role| Rights { role: Some(role), ..Rights::default() };
    devices.device(&key("ann")).unwrap().rights = Some(rights(Role::Banned));
    assert_eq!(devices.rights_loaded(&key("ann"), rights(Role::Member)), [1]);
    assert_eq!(devices.device(&key("ann")).unwrap().rights, Some(rights(Role::Banned)));
}

#[test]
fn who_joins_is_let_in_when_all_is_loaded_and_who_slept_was_let_in_before() {
    let mut devices = Devices::new(false, 0, Pool::new(99).share());
    devices.attach_unloaded(&key("ann"));
    assert!(devices.attach(&key("bob")) && devices.wants_rights(&key("bob"), None));
    assert_eq!(devices.wait(&key("bob"), 1), None);
    let is_let_in = |devices: &Devices<i32>, user| devices.get(&key(user)).unwrap().is_let_in();
    assert!(is_let_in(&devices, "ann") && !is_let_in(&devices, "bob"));
    assert_eq!(devices.loaded(&key("bob"), Vec::new()), []);
    assert_eq!(devices.rights_loaded(&key("bob"), Rights::default()), [1]);
    assert!(is_let_in(&devices, "bob"));
}

#[test]
fn a_device_is_kept_while_its_rights_are_loaded() {
    let mut devices = Devices::<()>::new(false, 0, Pool::new(99).share());
    assert!(devices.attach(&key("ann")) && devices.wants_rights(&key("ann"), None));
    assert_eq!(devices.loaded(&key("ann"), Vec::new()), []);
    devices.detach(&key("ann"));
    assert_eq!(devices.len(), 1, "a second load could be answered before the first");
    assert_eq!(devices.rights_loaded(&key("ann"), Rights::default()), []);
    assert_eq!(devices.len(), 0);
}

#[test]
fn a_device_that_left_with_records_on_their_way_is_kept_until_they_are_committed() {
    let mut devices = Devices::<()>::new(true, 1, Pool::new(99).share());
    let come_and_go = |devices: &mut Devices<()>, user| {
        assert!(!devices.attach(&key(user)));
        devices.detach(&key(user));
    };
    come_and_go(&mut devices, "ann");
    assert!(!devices.attach(&key("ann")));
    let answer = Answer { nonce: 1, seq: 1, time: 1, content_hash: 1, count: 1 };
    assert_eq!(devices.accept(&key("ann"), answer, 128), Some(0));
    devices.detach(&key("ann"));
    // She stands in the queue of those who left, and is pushed out of it.
    come_and_go(&mut devices, "bob");
    assert!(!devices.attach(&key("ann")));
    devices.committed(&key("ann"));
    let window = devices.device(&key("ann")).unwrap().window.as_ref().unwrap();
    assert_eq!(window.newest_nonce(), Some(1));
}

#[test]
fn a_record_that_waited_while_its_device_left_keeps_it_until_the_commit() {
    let mut devices = Devices::<()>::new(true, 1, Pool::new(99).share());
    for user in ["ann", "bob"] {
        assert!(!devices.attach(&key(user)));
    }
    let answer = |nonce| Answer { nonce, seq: nonce, time: 1, content_hash: 1, count: 1 };
    for (nonce, user) in [(1, "ann"), (2, "bob")] {
        assert_eq!(devices.accept(&key(user), answer(nonce), 128), Some(0));
        devices.committed(&key(user));
    }
    devices.detach(&key("ann"));
    // What her change refers to has been read.
    assert_eq!(devices.accept(&key("ann"), answer(3), 128), Some(1));
    devices.detach(&key("bob"));
    assert!(!devices.attach(&key("ann")));
    devices.committed(&key("ann"));
    assert_eq!(devices.newest(&key("ann")).map(|answer| answer.nonce), Some(3));
}

#[test]
fn a_device_that_comes_back_soon_is_not_loaded_again() {
    let mut devices = Devices::<()>::new(false, 1, Pool::new(99).share());
    let come = |devices: &mut Devices<()>, user| devices.attach(&key(user));
    for user in ["ann", "bob"] {
        assert!(come(&mut devices, user) && devices.wants_rights(&key(user), None));
        assert_eq!(
            (devices.loaded(&key(user), Vec::new()), devices.rights_loaded(&key(user), Rights::default())),
            (vec![], vec![])
        );
    }
    let answer = Answer { nonce: 7, seq: 1, time: 1, content_hash: 1, count: 1 };
    assert_eq!(devices.accept(&key("ann"), answer, 128), Some(0));
    devices.committed(&key("ann"));
    devices.detach(&key("ann"));
    assert!(!come(&mut devices, "ann") && !devices.wants_rights(&key("ann"), None));
    assert_eq!(devices.newest(&key("ann")).map(|answer| answer.nonce), Some(7));
    // She left again, and another one after her: she is the one that is forgotten.
    devices.detach(&key("ann"));
    devices.detach(&key("bob"));
    assert_eq!(devices.len(), 1);
    assert!(come(&mut devices, "ann") && !come(&mut devices, "bob"));
    // One that left before it was known is not kept.
    devices.detach(&key("ann"));
    assert_eq!(devices.loaded(&key("ann"), Vec::new()), []);
    assert!(devices.device(&key("ann")).is_none());
}

#[test]
fn a_room_without_a_store_keeps_some_that_left() {
    let mut devices = Devices::<()>::new(true, 2, Pool::new(99).share());
    for (nonce, user) in (1..).zip(["a", "b", "c", "a"]) {
        assert!(!devices.attach(&key(user)));
        let answer = Answer { nonce, seq: nonce, time: 1, content_hash: 1, count: 1 };
        assert!(devices.accept(&key(user), answer, 128).is_some());
        devices.committed(&key(user));
        devices.detach(&key(user));
        // Those who say nothing push nobody out.
        assert!(!devices.attach(&key("stranger")));
        devices.detach(&key("stranger"));
    }
    assert_eq!(devices.len(), 2);
    assert!(devices.device(&key("a")).is_some() && devices.device(&key("c")).is_some());
}
