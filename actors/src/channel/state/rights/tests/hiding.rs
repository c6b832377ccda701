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

/// A room with a record on its way to the store, and behind it a change that adds who was put out before it was said.
fn room_with_news() -> Room {
    let mut room = room(Access::Members, Past::ByAccess);
    room.enter("ann", 0, Some(member(Role::Owner, 1)));
    room.say(("ann", 0), 2, 1, "x", &["end turn"]);
    room
}

#[test]
fn who_was_added_behind_what_is_not_told_yet_is_taken_up_behind_it() {
    let added = Some(member(Role::Member, 7));
    for told in [false, true] {
        let mut room = room_with_news();
        room.check(Input::Adopt { arbiter: 1, devices: members(&["bob"]) }, &["load bob", "load rights of bob"]);
        if told {
            assert_eq!(room.change(7, "bob", None, added), ["told 7"]);
        }
        let read = if told { None } else { added };
        assert_eq!(room.rights("bob", read), [""; 0], "at 5 of 5 he would be brought what was said before");
        let want = ["append 6-6", "0: batch 6, #2 stored at 6", "1: batch 6", "1: adopted 1-6"];
        let hidden = ["0: hide from bob below 7", "1: hide from bob below 7"];
        assert_eq!(room.commit(), [&want[..], &hidden].concat());
    }
}

#[test]
fn who_was_added_behind_what_is_never_told_is_taken_up_when_that_is_known() {
    let mut room = room_with_news();
    room.handle(Input::EndOfTurn);
    room.handle(Input::Adopt { arbiter: 1, devices: members(&["bob"]) });
    room.rights("bob", Some(member(Role::Member, 7)));
    let failed = Input::Failed(StoreError::Poisoned("a test".into()));
    room.check(
        failed,
        &["0: #2 OutcomeUnknown", "1: adopted 1-5", "0: hide from bob below 6", "1: hide from bob below 6"],
    );
}

#[test]
fn who_was_added_behind_what_is_not_told_yet_joins_once_it_is() {
    let mut room = room_with_news();
    let bob = Some(member(Role::Member, 7));
    let enter = |room: &mut Room| {
        room.join("bob", 1, JoinFrom::Tail);
        room.answers("bob", vec![]);
        room.rights("bob", bob)
    };
    assert_eq!(enter(&mut room), ["1: #1 Busy"]);
    room.commit();
    assert_eq!(enter(&mut room), ["1: attach bob at 6 of 6"]);
    // What can no longer be stored is not waited for.
    let mut room = room_with_news();
    room.handle(Input::Failed(StoreError::Poisoned("a test".into())));
    assert_eq!(enter(&mut room), ["1: attach bob at 5 of 5"]);
}
