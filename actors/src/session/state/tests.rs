//! Frames in, effects out, each written as a line of text.

use parlor_protocol::{
    Body, DeviceTag, Extensions, List, Nonce,
    frame::HEADER_BYTES,
    message::{ContentType, Direction, Goodbye, Leave, Network},
};

mod uploads;

use super::*;
use crate::{members::What, session::heartbeat::BeatIntervals};

pub(super) struct Session {
    pub(super) state: State,
    now: Now,
}

pub(super) fn session() -> Session {
    let conn = Conn { arbiter: 0, slot: 0, serial: 1 };
    let device = DeviceKey { user: "ann".parse().unwrap(), tag: DeviceTag(1) };
    let beats = BeatIntervals { wifi_ms: 1_000, least_ms: 100, grace_least_ms: 10, ..BeatIntervals::default() };
    let heartbeat = Heartbeat::new(beats, Network::Wifi, 0);
    let limits = Limits {
        payload_bytes_max: 5,
        text_bytes_max: 12,
        upload_ms: 1_000,
        rooms_per_session_max: 2,
        ..Limits::default()
    };
    Session {
        state: State::new(conn, device, TierNumber(0), heartbeat, &limits, limits.uploads(), Now::default()),
        now: Now::default(),
    }
}

impl Session {
    #[track_caller]
    pub(super) fn check(&mut self, input: Input, want: &[&str]) {
        let what = format!("{input:?}");
        self.state.handle(self.now, input);
        let mut lines = Vec::new();
        while let Some(effect) = self.state.poll() {
            lines.push(match effect {
                Effect::Error { request, code, .. } => format!("#{request} {}", code.name().unwrap()),
                Effect::Begin(Pending { request, asks, .. }) => format!("#{request} begins to {asks:?}"),
                Effect::Resolve { request, name, resumes: None } => format!("#{request} resolve {name}"),
                Effect::Resolve { request, name, resumes: Some(room) } => {
                    format!("#{request} resolve {name}, which was {room}")
                }
                Effect::Join(room, join) => format!("#{} join {room} {:?}", join.request, join.from),
                Effect::Refuse { request, room: None, code, .. } => {
                    format!("#{request} refuse {}", code.name().unwrap())
                }
                Effect::Refuse { request, room: Some(room), code, .. } => {
                    format!("#{request} refuse {room} {}", code.name().unwrap())
                }
                Effect::NotResumed { request, position, code, .. } => {
                    format!("#{request} not resumed {} {}", position.room, code.name().unwrap())
                }
                Effect::Follow => "follow".into(),
                Effect::HandOver => "hand over".into(),
                Effect::Channel { request, room, input } => match input {
                    channel::state::Input::Publish(publish) => {
                        let Publish { nonce, silent, payload, .. } = publish;
                        let silent = if silent { " silently" } else { "" };
                        format!("#{request} to {room}: {nonce} {:?}{silent}", payload)
                    }
                    channel::state::Input::Mark(mark) => format!("#{request} to {room}: read {}", mark.read),
                    channel::state::Input::FetchReaders(fetch) => {
                        format!("#{request} to {room}: who read {}", fetch.seq)
                    }
                    channel::state::Input::Signal(signal) => format!("to {room}: signal {}", signal.key),
                    channel::state::Input::Fetch(fetch) => format!("#{request} to {room}: fetch {}", fetch.limit),
                    input => format!("{input:?}"),
                },
                Effect::SignalUser { user, signal } => format!("to {user}: signal {}", signal.key),
                Effect::SignalDropped => "signal dropped".into(),
                Effect::PartTaken { request, missing, .. } => format!("#{request} misses {missing:?}"),
                Effect::Arm => format!("timer at {}", self.state.deadline()),
                Effect::Change { request, wanted: Wanted::Room(name, what) } => {
                    format!("#{request} change {name}: {}", kind_of(&what))
                }
                Effect::Change { request, wanted: Wanted::Direct(user) } => format!("#{request} direct with {user}"),
                Effect::Look { request, look } => format!("#{request} look {look:?}"),
                Effect::Answer { request, frame } => {
                    let header = parlor_protocol::Header::from_bytes(frame.first_chunk().unwrap());
                    assert_eq!(header.request, request);
                    format!("#{request} {:?}", Kind::from_wire(header.kind).unwrap())
                }
                Effect::Leave { request, room } => format!("#{request} leave {room}"),
                Effect::Presence { request, asked } => format!("#{request} {asked:?}"),
                Effect::BeatAck { request, grant_ms, .. } => format!("#{request} grant {grant_ms}"),
                Effect::Close { code, goodbye, retry_after_ms: 0, .. } => {
                    format!("close {}{}", code.name().unwrap(), if goodbye.is_some() { " when answered" } else { "" })
                }
                Effect::Close { code, retry_after_ms, .. } => {
                    format!("close {} for {retry_after_ms} ms", code.name().unwrap())
                }
            });
        }
        assert_eq!(lines, want, "{what:.100}");
    }

    #[track_caller]
    pub(super) fn frame<'a, B: Body<'a>>(&mut self, request: u32, body: &B, want: &[&str]) {
        let body = parlor_protocol::to_bytes(request, body).slice(HEADER_BYTES..);
        self.check(Input::Frame { kind: B::KIND as u16, request, reused: false, body }, want);
    }

    #[track_caller]
    pub(super) fn join(&mut self, request: u32, room: &str, want: &[&str]) {
        let join = message::Join { room, from: JoinFrom::Tail, extensions: Extensions::default() };
        self.frame(request, &join, want);
    }

    /// Joins room 7.
    pub(super) fn joined(mut self) -> Self {
        self.join(1, "room", &["#1 begins to Join", "#1 resolve room"]);
        self.check(Input::Resolved { request: 1, resumes: None, room: Ok(RoomNumber(7)) }, &["#1 join 7 Tail"]);
        self.check(
            Input::JoinEnded { request: 1, asked: None, room: Ok((RoomNumber(7), "room".parse().unwrap())) },
            &[],
        );
        self
    }

    #[track_caller]
    fn leave(&mut self, request: u32, want: &[&str]) {
        self.frame(request, &Leave { room: RoomNumber(7), extensions: Extensions::default() }, want);
    }
}

/// A change, in short.
fn kind_of(what: &What) -> String {
    match what {
        What::Create { members, .. } => format!("create with {}", members.len()),
        What::Configure(_) => "configure".into(),
        What::Delete => "delete".into(),
        What::Set(role, users) => format!("{role:?} {users:?}"),
        What::Remove(users) => format!("remove {users:?}"),
        What::Purge(_) => "purge".into(),
    }
}

fn publish(nonce: Nonce, payload: &[u8]) -> message::Publish<'_> {
    message::Publish {
        room: RoomNumber(7),
        nonce,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        lifetime_ms: None,
        flags: 0,
        content_type: ContentType(1),
        payload,
        extensions: Extensions::default(),
    }
}

fn fetch() -> message::Fetch<'static> {
    let (room, extensions) = (RoomNumber(7), Extensions::default());
    message::Fetch { room, start: None, direction: Direction::Forward, limit: 9, extensions }
}

#[test]
fn a_join_asks_for_the_room_and_a_name_is_joined_once() {
    let mut session = session();
    session.join(1, "room", &["#1 begins to Join", "#1 resolve room"]);
    session.join(2, "room", &["#2 AlreadyJoined"]);
    session.join(3, "", &["#3 InvalidName"]);
    session.check(Input::Resolved { request: 9, resumes: None, room: Ok(RoomNumber(7)) }, &[]);
    let refusal = Err((Code::UnknownRoom, ""));
    session.check(Input::Resolved { request: 1, resumes: None, room: refusal }, &["#1 refuse UnknownRoom"]);
    session.check(Input::JoinEnded { request: 1, asked: None, room: Err(Code::UnknownRoom) }, &[]);
    let mut session = session.joined();
    session.join(2, "room", &["#2 AlreadyJoined"]);
    session.join(3, "other", &["#3 begins to Join", "#3 resolve other"]);
    session.join(4, "third", &["#4 TooManyRooms"]);
    session.leave(5, &["#5 leave 7"]);
    session.join(6, "third", &["#6 begins to Join", "#6 resolve third"]);
}

#[test]
fn only_a_member_speaks_reads_and_leaves() {
    let mut session = session();
    session.frame(2, &publish(1, b"x"), &["#2 NotJoined"]);
    session.frame(3, &fetch(), &["#3 NotJoined"]);
    session.leave(4, &["#4 NotJoined"]);
    let mut session = session.joined();
    session.frame(2, &publish(1, b"x"), &["#2 begins to Publish(1)", "#2 to 7: 1 b\"x\""]);
    session.frame(3, &fetch(), &["#3 begins to Fetch", "#3 to 7: fetch 9"]);
    session.leave(4, &["#4 leave 7"]);
    session.leave(5, &["#5 NotJoined"]);
    session.frame(6, &publish(1, b"x"), &["#6 NotJoined"]);
}

#[test]
fn a_publish_offers_what_version_1_takes() {
    let mut session = session().joined();
    let silent = message::Publish { flags: PUBLISH_SILENT, ..publish(1, b"") };
    session.frame(1, &silent, &["#1 begins to Publish(1)", "#1 to 7: 1 b\"\" silently"]);
    session.frame(2, &publish(2, b"12345"), &["#2 begins to Publish(2)", "#2 to 7: 2 b\"12345\""]);
    session.frame(3, &publish(3, b"123456"), &["#3 TooLarge"]);
    session.frame(4, &message::Publish { kind: RecordKind(1), ..publish(3, b"") }, &["#4 Unsupported"]);
    session.frame(5, &message::Publish { refers_to: 1, ..publish(3, b"") }, &["#5 Unsupported"]);
    session.frame(7, &message::Publish { flags: 2, ..publish(3, b"") }, &["#7 Unsupported"]);
    let change = |kind, flags, payload| message::Publish { kind, refers_to: 1, flags, ..publish(3, payload) };
    let took = ["#8 begins to Publish(3)", "#8 to 7: 3 b\"x\""];
    session.frame(8, &change(RecordKind::EDIT, 0, b"x"), &took);
    session.frame(8, &change(RecordKind::REACTION, 2, b"x"), &took);
    session.frame(9, &change(RecordKind(4), 0, b"x"), &["#9 Unsupported"]);
    session.frame(9, &change(RecordKind::EDIT, 2, b"x"), &["#9 Unsupported"]);
    session.frame(9, &change(RecordKind::RECALL, 0, b"x"), &["#9 Unsupported"]);
    session.frame(9, &change(RecordKind::REACTION, 0, b""), &["#9 Unsupported"]);
    session.frame(9, &change(RecordKind::REACTION, 0, b"\xff"), &["#9 Unsupported"]);
}

#[test]
fn what_is_not_a_request_ends_the_session() {
    let frame = |kind: Kind, body: &'static [u8]| Input::Frame {
        kind: kind as u16,
        request: 1,
        reused: false,
        body: body.into(),
    };
    session().check(frame(Kind::Join, b""), &["close MalformedFrame"]);
    session().check(frame(Kind::Publish, b"\xff\xff\xff"), &["close MalformedFrame"]);
    session().check(frame(Kind::Hello, b""), &["close HelloExpected"]);
    // A module's kind that no module here takes is skipped.
    session().check(Input::Frame { kind: 0x8001, request: 1, reused: false, body: Bytes::new() }, &[]);
    session().frame(1, &Goodbye { extensions: Extensions::default() }, &["close Goodbye when answered"]);
    session().check(Input::End(Code::Replaced), &["close Replaced"]);
    session().check(Input::Kick("cheats".into()), &["close Kicked"]);
    session().check(Input::End(Code::Superseded), &["hand over", "close Superseded"]);
}

#[test]
fn any_frame_proves_life_but_only_beats_adapt() {
    let mut session = session();
    let beat = message::Heartbeat { network: None, positions: List::default(), extensions: Extensions::default() };
    // Three grants of 1,000 ms, each with 100 ms of grace.
    assert_eq!(session.state.deadline(), 3_300);
    session.now.mono_ms = 3_299;
    session.check(Input::Timer { owes: false }, &[]);
    session.leave(1, &["#1 NotJoined"]);
    assert_eq!((session.state.deadline(), session.state.grant_ms()), (6_599, 1_000));
    session.now.mono_ms = 3_300;
    session.check(Input::Timer { owes: false }, &[]);
    // The silence before it was two grants and more.
    session.frame(2, &beat, &["#2 grant 250", "timer at 4125"]);
    assert_eq!(session.state.deadline(), 3_300 + 3 * 275);
    session.now.mono_ms = session.state.deadline();
    // Whoever waits for the server is not silent.
    session.check(Input::Timer { owes: true }, &[]);
    session.now.mono_ms = session.state.deadline();
    session.check(Input::Timer { owes: false }, &["close LeaseExpired"]);
}

#[test]
fn the_timer_follows_a_grant_that_got_shorter() {
    let mut session = session();
    let beat = |network| message::Heartbeat {
        network: Some(network),
        positions: List::default(),
        extensions: Extensions::default(),
    };
    session.frame(1, &beat(Network::Wired), &["#1 grant 10000"]);
    assert_eq!(session.state.deadline(), 33_000);
    session.frame(2, &beat(Network::Wired), &["#2 grant 10000"]);
    session.frame(3, &beat(Network::Wifi), &["#3 grant 1000", "timer at 3300"]);
    session.now.mono_ms = 3_300;
    session.check(Input::Timer { owes: false }, &["close LeaseExpired"]);
}

#[test]
fn a_number_is_not_used_again_before_its_answer() {
    let mut session = session();
    let body = Bytes::new();
    session
        .check(Input::Frame { kind: Kind::Goodbye as u16, request: 5, reused: true, body }, &["close MalformedFrame"]);
}

#[test]
fn a_session_that_rests_owns_its_rooms_alone() {
    let mut session = session().joined();
    session.state.rest();
    let state = &session.state;
    assert_eq!((state.rooms.capacity(), state.joining.capacity(), state.effects.capacity()), (1, 0, 0));
}

#[test]
fn rooms_are_found_whatever_the_order_of_their_joins() {
    let mut session = session();
    for (request, room, name) in [(1, 9, "nine"), (2, 3, "three")] {
        session.join(request, name, &[&format!("#{request} begins to Join"), &format!("#{request} resolve {name}")]);
        let joined = Ok((RoomNumber(room), name.parse().unwrap()));
        session.check(Input::JoinEnded { request, asked: None, room: joined }, &[]);
    }
    session.join(5, "five", &["#5 TooManyRooms"]);
    for room in [3, 9] {
        let leave = Leave { room: RoomNumber(room), extensions: Extensions::default() };
        session.frame(6, &leave, &[&format!("#6 leave {room}")]);
        session.frame(7, &leave, &["#7 NotJoined"]);
        if room == 3 {
            session.join(8, "nine", &["#8 AlreadyJoined"]);
        }
    }
    session.join(8, "three", &["#8 begins to Join", "#8 resolve three"]);
}

mod following;
mod receipts;
mod resuming;
