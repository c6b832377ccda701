//! A past that is hidden while people are in the room.

use super::*;

fn configure(room: &mut Room, past: Past) -> Vec<String> {
    let options = RoomOptions { access: Access::Open, past, ..RoomOptions::default() };
    let change = Changed::Configured(room.state.room(), options);
    room.handle(Input::Changed { id: 5, change: change.into() })
}

#[test]
fn a_past_that_is_hidden_is_hidden_at_once() {
    let mut room = room(Access::Open, Past::All);
    room.state.refill = Refill::Done;
    room.enter("ann", 0, Some(member(Role::Member, 4)));
    room.enter("bob", 1, Some(member(Role::Member, 1)));
    room.enter("cem", 1, None);
    assert_eq!(room.fetch("ann", Some(1), Direction::Forward), ["read 1: 1-5, 3 of them"]);
    assert_eq!(room.handle(Input::Pull { conn: conn(0), after: 1 }), ["read 2: 2-5, 3 of them"]);
    let hide = |arbiter| format!("{arbiter}: hide from ann below 4 cem below 6");
    assert_eq!(configure(&mut room, Past::SinceAdded), [hide(0), hide(1), "0: #9 Busy".into(), "told 5".into()]);
    // What was being read for pages goes to nobody; what was pulled is dropped by the relay.
    room.check(Input::Read { id: 1, records: Ok(Records::default()) }, &[]);
    let page = "0: #9 page none gap 1-3 not yours, next Some(4), tail 5";
    assert_eq!(room.fetch("ann", Some(1), Direction::Forward), [page]);
    assert_eq!(configure(&mut room, Past::SinceAdded), ["told 5"], "it was hidden already");
    assert_eq!(configure(&mut room, Past::All), ["told 5"]);
    assert_eq!(room.fetch("bob", Some(1), Direction::Forward), ["read 3: 1-5, 3 of them"]);
}

#[test]
fn who_is_added_anew_reads_no_further_back_at_once_and_a_mute_disturbs_no_page() {
    let mut room = room(Access::Open, Past::SinceAdded);
    room.state.refill = Refill::Done;
    let (ann, muted) = (Some(member(Role::Member, 2)), Some(member(Role::Muted, 2)));
    room.enter("ann", 0, ann);
    assert_eq!(room.fetch("ann", Some(2), Direction::Forward), ["read 1: 2-5, 3 of them"]);
    assert_eq!(room.change(7, "ann", ann, muted), ["told 7"]);
    let anew = Some(member(Role::Member, 6));
    assert_eq!(room.change(8, "ann", muted, anew), ["0: hide from ann below 6", "0: #9 Busy", "told 8"]);
}

#[test]
fn members_of_a_rebuilt_room_go_on_where_they_may_read() {
    let mut room = room(Access::Members, Past::SinceAdded);
    let want = ["load ann", "load rights of ann"];
    room.check(Input::Adopt { arbiter: 1, devices: members(&["ann"]) }, &want);
    let want = ["1: adopted 1-5", "1: hide from ann below 4"];
    assert_eq!(room.rights("ann", Some(member(Role::Member, 4))), want);
}
