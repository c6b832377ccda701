use parlor_protocol::{
    Epoch,
    message::{Access, Announce, Direction, Past, RecordKind, Role, RoomOptions, decode_member_changes},
};

use super::*;
use crate::{
    channel::refill::Refill,
    channel::state::{
        Input, Sleep,
        tests::{Room, back, conn, key, records, room_of},
    },
    members::{Asker, Counts, MemberChange},
    message::{Fetch, Join, Returning},
};

fn member(role: Role, since: Seq) -> Member {
    Member { role, since, epoch: Epoch(3), count: since - 1, added: since }
}

/// A room of this access with 5 records in the store that knows somebody, so that rights are loaded.
fn room(access: Access, past: Past) -> Room {
    room_of("room", RoomOptions { access, past, ..RoomOptions::default() }, (1, 5), 1)
}

/// Subscribers of a channel before, whose users were members.
fn members(users: &[&str]) -> Vec<Returning> {
    users.iter().map(|user| Returning { device: key(user), member: true, met: Mark::default() }).collect()
}

impl Room {
    fn rights(&mut self, user: &str, member: Option<Member>) -> Vec<String> {
        self.handle(Input::Rights { device: key(user), member: Ok(member) })
    }

    /// Joins `user` with this role.
    fn enter(&mut self, user: &str, arbiter: u16, member: Option<Member>) -> Vec<String> {
        assert_eq!(
            self.join(user, arbiter, JoinFrom::Tail),
            [format!("load {user}"), format!("load rights of {user}")]
        );
        assert_eq!(self.answers(user, vec![]), [""; 0], "the rights are missing");
        self.rights(user, member)
    }

    fn change(&mut self, id: u64, user: &str, before: Option<Member>, after: Option<Member>) -> Vec<String> {
        let users = vec![MemberChange { user: user.parse().unwrap(), before, after }];
        let counts = Counts { members: 9, banned: 0 };
        let options = RoomOptions { announce: Announce::Never, ..RoomOptions::default() };
        let change = MembersChanged::new(self.state.room(), &options, Asker::Host, users, counts, || id);
        self.handle(Input::Changed { id, change: Arc::new(Changed::Members(change.into())) })
    }

    fn announced(&mut self, id: u64, by: Asker, users: &[&str]) -> Vec<String> {
        let one = |user: &&str| MemberChange {
            user: user.parse().unwrap(),
            before: None,
            after: Some(member(Role::Member, 6)),
        };
        let (users, counts) = (users.iter().map(one).collect(), Counts { members: 9, banned: 0 });
        let (options, mut number) = (RoomOptions::default(), id * 10);
        let next = || {
            number += 1;
            number
        };
        let change = MembersChanged::new(self.state.room(), &options, by, users, counts, next);
        self.handle(Input::Changed { id, change: Arc::new(Changed::Members(change.into())) })
    }

    fn fetch(&mut self, user: &str, start: Option<Seq>, direction: Direction) -> Vec<String> {
        let fetch = Fetch { conn: conn(0), request: 9, device: key(user), start, direction, limit: 3 };
        self.handle(Input::Fetch(fetch))
    }
}

#[test]
fn a_join_waits_for_answers_and_rights_in_either_order() {
    let mut room = room(Access::Members, Past::All);
    assert_eq!(room.enter("ann", 0, Some(member(Role::Member, 1))), ["0: attach ann at 5 of 5"]);
    assert_eq!(room.join("bob", 1, JoinFrom::Tail), ["load bob", "load rights of bob"]);
    assert_eq!(room.rights("bob", Some(member(Role::Muted, 1))), [""; 0]);
    assert_eq!(room.answers("bob", vec![]), ["1: attach bob at 5 of 5"]);
}

#[test]
fn a_room_that_knows_nobody_reads_nothing_of_rights() {
    let mut room = room_of("room", RoomOptions::default(), (1, 5), 0);
    assert_eq!(room.join("ann", 0, JoinFrom::Tail), ["load ann"]);
    assert_eq!(room.answers("ann", vec![]), ["0: attach ann at 5 of 5"]);
}

#[test]
fn who_may_join_and_speak_is_what_the_table_says() {
    for (access, role, joins, speaks) in [
        (Access::Open, None, true, true),
        (Access::Open, Some(Role::Muted), true, false),
        (Access::Open, Some(Role::Banned), false, false),
        (Access::Members, None, false, false),
        (Access::Members, Some(Role::Member), true, true),
        (Access::Broadcast, Some(Role::Member), true, false),
        (Access::Broadcast, Some(Role::Moderator), true, true),
    ] {
        let mut room = room(access, Past::All);
        let entered = room.enter("ann", 0, role.map(|role| member(role, 1)));
        assert_eq!(entered, [if joins { "0: attach ann at 5 of 5" } else { "0: #1 Forbidden" }], "{access:?} {role:?}");
        if joins {
            room.say(("ann", 0), 2, 1, "x", &[if speaks { "end turn" } else { "0: #2 Forbidden" }]);
        } else {
            assert_eq!(room.state.devices(), 0);
        }
    }
}

#[test]
fn who_follows_and_was_added_to_an_open_room_behind_what_is_not_told_yet_is_attached_once_it_is() {
    let mut room = room(Access::Open, Past::All);
    room.enter("ann", 0, None);
    room.say(("ann", 0), 2, 1, "x", &["end turn"]);
    // At 5 of 5 he would be told that a position of his, which he never had, is above the tail.
    let from = JoinFrom::Position(Epoch(3), 6);
    let join = Join { conn: conn(1), request: 0, device: key("bob"), from, follows: true };
    let enter = |room: &mut Room| {
        room.handle(Input::Join(join.clone()));
        room.answers("bob", vec![]);
        room.rights("bob", Some(member(Role::Member, 7)))
    };
    assert_eq!(enter(&mut room), ["1: #0 Busy"]);
    room.commit();
    assert_eq!(enter(&mut room), ["1: attach bob at 6 of 6"]);
}

#[test]
fn a_change_counts_at_once_for_who_is_there() {
    let mut room = room(Access::Members, Past::All);
    let (ann, muted) = (Some(member(Role::Member, 1)), Some(member(Role::Muted, 1)));
    room.enter("ann", 0, ann);
    room.enter("bob", 1, ann);
    assert_eq!(room.change(7, "ann", ann, muted), ["told 7"]);
    room.say(("ann", 0), 2, 1, "x", &["0: #2 Forbidden"]);
    room.say(("bob", 1), 2, 1, "x", &["end turn"]);
    assert_eq!(room.change(8, "ann", muted, ann), ["told 8"]);
    room.say(("ann", 0), 3, 1, "x", &[]);
    // Gone before the answer to the change is on its way.
    assert_eq!(room.change(9, "ann", ann, None), ["0: detach ann Forbidden", "1: detach ann Forbidden", "told 9"]);
    room.say(("ann", 0), 4, 2, "x", &["0: #4 Forbidden"]);
    assert_eq!(room.fetch("ann", None, Direction::Forward), ["0: #9 Forbidden"]);
    room.check(Input::Detached { arbiter: 0, device: key("ann") }, &[]);
}

#[test]
fn a_repeat_of_what_was_said_before_is_answered_though_the_user_is_muted_now() {
    let mut room = room(Access::Open, Past::All);
    room.enter("ann", 0, None);
    room.say(("ann", 0), 2, 1, "x", &["end turn"]);
    room.commit();
    room.change(7, "ann", None, Some(member(Role::Muted, 6)));
    room.say(("ann", 0), 3, 1, "x", &["0: #3 stored at 6 again"]);
    room.say(("ann", 0), 4, 2, "x", &["0: #4 Forbidden"]);
}

#[test]
fn a_ban_that_is_told_while_a_join_reads_the_store_is_not_undone_by_what_was_read() {
    let mut room = room(Access::Open, Past::All);
    room.join("ann", 0, JoinFrom::Tail);
    room.answers("ann", vec![]);
    let banned = Some(member(Role::Banned, 6));
    assert_eq!(room.change(7, "ann", None, banned), ["told 7"], "she is not a subscriber yet");
    assert_eq!(room.rights("ann", None), ["0: #1 Forbidden"]);
}

#[test]
fn a_member_reads_what_was_said_since_he_was_added() {
    let mut room = room(Access::Members, Past::ByAccess);
    let ann = Some(member(Role::Member, 4));
    assert_eq!(room.join("ann", 0, JoinFrom::Seq(2)), ["load ann", "load rights of ann"]);
    room.answers("ann", vec![]);
    assert_eq!(room.rights("ann", ann), ["0: attach ann at 3 of 5, gap 2-3 NotYours"]);
    // All pages come from the store.
    room.state.refill = Refill::Done;
    let fetch = |room: &mut Room, start, direction| room.fetch("ann", start, direction).concat();
    assert_eq!(
        fetch(&mut room, Some(1), Direction::Forward),
        "0: #9 page none gap 1-3 not yours, next Some(4), tail 5"
    );
    assert_eq!(fetch(&mut room, None, Direction::Forward), "read 1: 4-5, 3 of them");
    assert_eq!(fetch(&mut room, Some(5), Direction::Backward), "read 2: 5-4, 3 of them");
    room.enter("bob", 0, Some(member(Role::Owner, 1)));
    let all = room.fetch("bob", Some(5), Direction::Backward);
    assert_eq!(all, ["0: #9 Busy"], "a third read, and not that of who may see less");
    // Banned and taken back, he begins anew.
    room.change(7, "ann", ann, Some(member(Role::Member, 6)));
    let page = "0: #9 page none gap 1-5 not yours, next None, tail 5";
    assert_eq!(fetch(&mut room, Some(5), Direction::Backward), page);
}

#[test]
fn a_room_becomes_one_for_members() {
    let mut room = room(Access::Open, Past::All);
    room.enter("ann", 0, Some(member(Role::Owner, 1)));
    room.enter("bob", 1, None);
    let options = RoomOptions { access: Access::Members, ..RoomOptions::default() };
    let change = Changed::Configured(room.state.room(), options);
    let want = ["0: detach bob Forbidden", "1: detach bob Forbidden", "told 5"];
    room.check(Input::Changed { id: 5, change: change.into() }, &want);
}

#[test]
fn subscribers_are_taken_up_once_it_is_known_who_may_be_there() {
    let mut room = room(Access::Members, Past::All);
    let devices = members(&["ann", "bob"]);
    let want = ["load ann", "load rights of ann", "load bob", "load rights of bob"];
    room.check(Input::Adopt { arbiter: 1, devices }, &want);
    assert_eq!(room.rights("ann", Some(member(Role::Member, 1))), [""; 0]);
    let want = ["1: adopted 1-5", "1: detach bob Forbidden"];
    assert_eq!(room.rights("bob", Some(member(Role::Banned, 1))), want);
    room.check(Input::Adopt { arbiter: 0, devices: back(&["cem"]) }, &["load cem", "load rights of cem"]);
    let busy = Input::Rights { device: key("cem"), member: Err(StoreError::Busy) };
    room.check(busy, &["stop"]);
}

#[test]
fn a_memory_room_remembers_who_was_added_since_it_was_loaded() {
    let options = RoomOptions { durability: Durability::Memory, access: Access::Members, ..RoomOptions::default() };
    let mut room = room_of("room", options, (1, 0), 1);
    assert_eq!(room.join("ann", 0, JoinFrom::Tail), ["load rights of ann"]);
    room.rights("ann", Some(member(Role::Owner, 1)));
    for nonce in 1..=3 {
        room.say(("ann", 0), 2, nonce, "x", &["end turn"]);
        room.commit();
    }
    let bob = Some(Member { role: Role::Member, since: 1, epoch: Epoch(0), count: 0, added: 9 });
    room.change(7, "bob", None, bob);
    assert_eq!(room.join("bob", 1, JoinFrom::Seq(1)), ["load rights of bob"]);
    assert_eq!(room.rights("bob", bob), ["1: attach bob at 3 of 3, gap 1-3 NotYours"]);
}

#[test]
fn a_change_of_members_is_a_record_that_does_not_count() {
    let mut room = room(Access::Open, Past::All);
    room.enter("ann", 0, Some(member(Role::Owner, 1)));
    assert_eq!(room.announced(7, Asker::User("ann".parse().unwrap()), &["bob", "cem"]), ["end turn", "told 7"]);
    assert_eq!(room.handle(Input::EndOfTurn), ["append 6-6"]);
    crate::testkit::with_deliver(&room.queue[0].frames, |deliver| {
        let want = [("bob", Some(Role::Member)), ("cem", Some(Role::Member))];
        assert_eq!(decode_member_changes(deliver.payload).unwrap(), want);
        let got = (deliver.sender, deliver.device_tag.0, deliver.kind, deliver.count, deliver.seq);
        assert_eq!(got, ("ann", 0, RecordKind::MEMBERS, 5, 6));
    });
    // What ann says next comes behind it.
    room.say(("ann", 0), 2, 1, "x", &["end turn"]);
    assert_eq!(room.commit(), ["append 7-7", "0: batch 6 7, #2 stored at 7"]);
}

#[test]
fn a_large_change_of_members_is_several_records_and_what_the_queue_does_not_take_follows() {
    let users: Vec<String> = (0..250).map(|number| number.to_string()).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut room = room(Access::Open, Past::All);
    assert_eq!(room.announced(7, Asker::Host, &users), ["end turn", "told 7"]);
    assert_eq!(room.handle(Input::EndOfTurn), ["append 6-7"], "the queue has places for two");
    room.check(Input::SaveMarks, &[]);
    room.queue.clear();
    // The queue has room again, and the room hears of something.
    room.check(Input::SaveMarks, &["end turn"]);
    room.check(Input::Committed(7), &[]);
    assert_eq!(room.handle(Input::EndOfTurn), ["append 8-8"]);
    crate::testkit::with_deliver(&room.queue[0].frames, |deliver| {
        assert_eq!((deliver.nonce, decode_member_changes(deliver.payload).unwrap().len()), (73, 50));
    });
}

#[test]
fn what_a_user_may_not_read_he_may_not_change() {
    let mut room = room(Access::Members, Past::ByAccess);
    room.enter("ann", 0, Some(member(Role::Member, 4)));
    let reaction = |target| crate::message::Publish {
        kind: RecordKind::REACTION,
        refers_to: target,
        ..crate::channel::state::tests::publish("ann", 0, 2, 1, "+")
    };
    room.check(Input::Publish(reaction(3)), &["0: #2 TargetGone"]);
    room.check(Input::Publish(reaction(4)), &["read 1: target 4"]);
}

#[test]
fn what_is_asked_for_backward_and_hidden_is_told() {
    let mut room = room(Access::Members, Past::ByAccess);
    room.enter("ann", 0, Some(member(Role::Member, 4)));
    let page = room.fetch("ann", Some(3), Direction::Backward).concat();
    assert_eq!(page, "0: #9 page none gap 1-3 not yours, next None, tail 5");
}

#[test]
fn a_stranger_reads_since_he_came_though_the_room_slept() {
    let options = RoomOptions { past: Past::SinceAdded, ..RoomOptions::default() };
    let mark = || {
        let read = crate::message::MarkRead { conn: conn(0), request: 3, device: key("bob"), read: 0 };
        Input::Mark(read)
    };
    let mut room = room_of("room", options, (1, 5), 0);
    room.join("bob", 0, JoinFrom::Tail);
    room.answers("bob", vec![]);
    room.join("ann", 1, JoinFrom::Tail);
    room.answers("ann", vec![]);
    for nonce in 1..=2 {
        room.handle(Input::Publish(crate::channel::state::tests::publish("ann", 1, 1, nonce, "x")));
        room.commit();
    }
    let before = [room.handle(mark()), room.fetch("bob", Some(6), Direction::Forward)].concat();
    assert_eq!(before, ["0: #3 read 0, 2 unread", "0: #9 page 6 7, next None, tail 7"]);
    // The room slept, and is woken by him.
    let mut room = room_of("room", options, (1, 7), 0);
    let expect = Sleep::Expect(crate::arbiters::Arbiters::first(1));
    room.handle(Input::Sleep(expect));
    let devices = back(&["bob"]).into_iter().map(|bob| Returning { met: Mark { seq: 5, count: 5 }, ..bob }).collect();
    room.handle(Input::Sleep(Sleep::Woken { arbiter: 0, devices }));
    room.check(mark(), &["0: #3 read 0, 2 unread"]);
    assert_eq!(room.fetch("bob", Some(6), Direction::Forward), ["load bob"]);
    assert_eq!(room.answers("bob", vec![]), ["read 1: 7-4, 4 of them"]);
    let read = Input::Read { id: 1, records: Ok(records(4, 7)) };
    room.check(read, &["0: #9 page 6 7, next None, tail 7"]);
    assert_eq!(
        room.fetch("bob", Some(5), Direction::Forward),
        ["0: #9 page none gap 5-5 not yours, next Some(6), tail 7"]
    );
    room.check(mark(), &["0: #3 read 0, 2 unread"]);
}

mod hiding;
mod removing;
