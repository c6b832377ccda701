//! Inputs in; what others must do, and what each connection gets, each written as a line of text.

use std::{cell::RefCell, task::Poll};

use bytes::{Bytes, BytesMut};
use parlor_protocol::{
    Body, Code, DeviceTag, Extensions, Header, Kind, UnixMillis,
    frame::HEADER_BYTES,
    message::{Close, ContentType, Deliver, Durability, Error, Gap, Left, Position, RecordKind},
};

use super::*;
use crate::{
    message::{Attach, Batch, Hidden, Returning, Stored},
    outbound::{Outbound, Wire},
    port::EpochStart,
    testkit::with_deliver,
};

const ROOM: RoomNumber = RoomNumber(1);

struct Relay {
    state: State,
    now: UnixMillis,
}

fn relay() -> Relay {
    let limits = Limits {
        outbound_bytes_max: 400,
        outbound_low_bytes: 100,
        slow_reader_ms: 1_000,
        close_linger_ms: 200,
        hold_back_ms: 100,
        ..Limits::default()
    };
    Relay { state: State::new(1, Arc::new(limits)), now: 0 }
}

fn key(user: &str) -> DeviceKey {
    DeviceKey { user: user.parse().unwrap(), tag: DeviceTag(1) }
}

fn deliver(seq: Seq, bytes: usize) -> Bytes {
    let deliver = Deliver {
        room: ROOM,
        seq,
        time: 1,
        sender: "ann",
        device_tag: DeviceTag(1),
        nonce: seq,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        expires: 0,
        count: seq,
        content_type: ContentType(1),
        payload: &vec![b'x'; bytes],
        extensions: Extensions::default(),
    };
    parlor_protocol::to_bytes(0, &deliver)
}

fn delivers(first: Seq, last: Seq, bytes: usize) -> Bytes {
    (first..=last).map(|seq| deliver(seq, bytes)).collect::<Vec<_>>().concat().into()
}

fn batch(first: Seq, last: Seq, bytes: usize) -> FromChannel {
    let batch = Some(Batch { first, last, frames: delivers(first, last, bytes) });
    FromChannel::Committed { batch, durability: Durability::Synced, stored: Vec::new() }
}

fn pulled(conns: &[Conn], after: Seq, last: Seq) -> FromChannel {
    FromChannel::Pulled { conns: conns.into(), after, page: Some((last, delivers(after + 1, last, 10))) }
}

fn adopted(epochs: &[(u64, Seq)], first: Seq, tail: Seq) -> FromChannel {
    let epochs = epochs.iter().map(|(epoch, first)| EpochStart { epoch: Epoch(*epoch), first: *first }).collect();
    FromChannel::Adopted { epochs, first, trimmed: first, tail }
}

fn stored(conn: Conn, request: u32) -> FromChannel {
    let stored = vec![Stored { conn, request, nonce: 1, seq: 9, time: 1, duplicate: false }];
    FromChannel::Committed { batch: None, durability: Durability::Synced, stored }
}

fn refused(conn: Conn, request: u32, code: Code) -> FromChannel {
    FromChannel::Refused { conn, request, code, retry_after_ms: 1, message: "" }
}

/// Takes everything, or nothing.
struct Socket {
    open: bool,
    taken: RefCell<Vec<u8>>,
}

impl Wire for Socket {
    fn poll_write(&self, _: &mut std::task::Context<'_>, waiting: &mut Outbound) -> Poll<std::io::Result<()>> {
        if !self.open {
            return Poll::Pending;
        }
        self.taken.borrow_mut().extend(waiting.pop().unwrap());
        Poll::Ready(Ok(()))
    }
}

impl Relay {
    fn connect(&mut self, user: &str) -> Conn {
        self.state.on_connect(key(user))
    }

    /// What others must do.
    fn effects(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(effect) = self.state.poll() {
            lines.push(match effect {
                Effect::Pull { conn, after, .. } => format!("pull {} after {after}", conn.slot),
                Effect::Detached { device, .. } => format!("detached {}", device.user),
                Effect::JoinEnded { conn, room, .. } => {
                    format!("join of {} {}", conn.slot, if room.is_ok() { "ends" } else { "fails" })
                }
                Effect::Answered(conn) => format!("answered {}", conn.slot),
                Effect::Lost { conn, stands } => {
                    format!("{} lost {} at {} of {}", conn.slot, stands.room, stands.seq, stands.epoch)
                }
                Effect::Delivered { user, seq, .. } => format!("{user} has {seq}"),
                Effect::Wake(room) => format!("wake {room}"),
                Effect::Forgot(room) => format!("{room} forgotten"),
                Effect::Finish(conn) => format!("finish {}", conn.slot),
                Effect::Kill(conn) => format!("kill {}", conn.slot),
            });
        }
        lines
    }

    #[track_caller]
    fn news(&mut self, news: FromChannel, want: &[&str]) {
        let what = format!("{news:?}");
        self.state.on_news(ROOM, news);
        assert_eq!(self.effects(), want, "{what:.100}");
    }

    fn begin(&mut self, conn: Conn, request: u32, asks: Asks) {
        self.state.begin(conn, Pending { request, room: Some(ROOM), asks });
    }

    fn attach(&mut self, conn: Conn, user: &str, cursor: Seq, tail: Seq) -> Vec<String> {
        self.begin(conn, 1, Asks::Join);
        let (name, answer) = ("room".parse().unwrap(), Bytes::new());
        let attach = Attach {
            conn,
            request: 1,
            device: key(user),
            member: false,
            met: Mark { seq: 4, count: 2 },
            name,
            epoch: Epoch(3),
            tail,
            cursor,
            answer,
        };
        self.state.on_news(ROOM, FromChannel::Attach(attach));
        self.effects()
    }

    /// A subscriber at the tail.
    fn live(&mut self, user: &str, tail: Seq) -> Conn {
        let conn = self.connect(user);
        self.attach(conn, user, tail, tail);
        conn
    }

    /// What the connection's socket is given, if it takes anything.
    fn reads(&mut self, conn: Conn) -> String {
        self.write(conn, true)
    }

    fn write(&mut self, conn: Conn, open: bool) -> String {
        let socket = Socket { open, taken: RefCell::default() };
        let Some(outbound) = self.state.outbound(conn) else { return "gone".into() };
        let before = outbound.bytes();
        let _ = outbound.poll_drain(&socket, &mut std::task::Context::from_waker(std::task::Waker::noop()));
        let progressed = outbound.bytes() < before;
        self.state.on_written(conn, progressed, self.now);
        text(&socket.taken.take())
    }

    #[track_caller]
    fn tick(&mut self, ms: u64, want: &[&str]) {
        self.now += ms;
        self.state.on_tick(self.now);
        assert_eq!(self.effects(), want);
    }
}

/// Frames, in short.
fn text(mut bytes: &[u8]) -> String {
    fn body<'a, B: Body<'a>>(frame: &'a [u8]) -> B {
        parlor_protocol::decode(&frame[HEADER_BYTES..]).unwrap()
    }
    let mut parts = Vec::new();
    while let Some(header) = bytes.first_chunk() {
        let header = Header::from_bytes(header);
        let (frame, rest) = bytes.split_at(HEADER_BYTES + header.len as usize);
        bytes = rest;
        parts.push(match Kind::from_wire(header.kind).unwrap() {
            Kind::Deliver => with_deliver(frame, |deliver| deliver.seq.to_string()),
            Kind::Gap => {
                let gap: Gap<'_> = body(frame);
                format!("gap {}-{} {:?}", gap.from, gap.to, gap.why)
            }
            Kind::Ack => format!("#{} ack", header.request),
            Kind::Left => format!("#{} left at {}", header.request, body::<Left<'_>>(frame).cursor),
            Kind::Error => format!("#{} {}", header.request, body::<Error<'_>>(frame).code.name().unwrap()),
            Kind::Close => format!("close {}", body::<Close<'_>>(frame).code.name().unwrap()),
            kind => format!("{kind:?}"),
        });
    }
    parts.join(" ")
}

#[test]
fn who_is_put_out_is_told_and_gets_nothing_more() {
    let mut relay = relay();
    let (ann, bob) = (relay.live("ann", 4), relay.live("bob", 4));
    relay.begin(ann, 7, Asks::Fetch);
    relay.begin(ann, 8, Asks::Publish(5));
    let detach = |users: &[&str]| {
        let users = users.iter().map(|user| user.parse().unwrap()).collect();
        FromChannel::Detach { users, code: Code::Forbidden, message: "" }
    };
    let want = ["answered 0", "answered 0", "detached ann", "0 lost 1 at 4 of 3"];
    relay.news(detach(&["ann", "cem"]), &want);
    relay.news(batch(5, 5, 10), &[]);
    relay.news(pulled(&[ann], 4, 5), &[]);
    let page = FromChannel::Answer { conn: ann, request: 7, frame: deliver(5, 10) };
    relay.news(page, &[]);
    assert_eq!(relay.reads(ann), "#7 Forbidden #8 OutcomeUnknown Detached");
    assert_eq!(relay.reads(bob), "5");
    relay.news(detach(&["ann"]), &[]);
    // Her session, which has yet to hear of it, asks for more: in an open room the channel would answer it.
    relay.begin(ann, 9, Asks::Fetch);
    assert_eq!(relay.state.may_pass(ann, 9, ROOM).unwrap_err().0, Code::NotJoined);
    assert!(relay.state.may_pass(bob, 9, ROOM).is_ok());
    relay.news(refused(ann, 9, Code::NotJoined), &["answered 0"]);
    assert_eq!(relay.attach(ann, "ann", 5, 5), ["answered 0", "join of 0 ends"], "she may come back");
}

#[test]
fn a_room_that_is_gone_answers_all_that_waits_for_it() {
    let mut relay = relay();
    let (ann, bob) = (relay.live("ann", 4), relay.connect("bob"));
    relay.begin(ann, 7, Asks::Publish(5));
    relay.begin(bob, 1, Asks::Join);
    relay.state.on_room_gone(ROOM);
    let want = ["answered 0", "detached ann", "0 lost 1 at 4 of 3", "answered 1", "join of 1 fails"];
    assert_eq!(relay.effects(), want);
    assert_eq!((relay.reads(ann), relay.reads(bob)), ("#7 RoomDeleted Detached".into(), "#1 RoomDeleted".into()));
    assert!(!relay.state.knows(ROOM));
}

#[test]
fn a_batch_goes_to_whom_it_follows_and_each_is_dirty_once() {
    let mut relay = relay();
    let (ann, bob) = (relay.live("ann", 4), relay.live("bob", 4));
    relay.news(batch(5, 6, 10), &[]);
    relay.news(batch(7, 7, 10), &[]);
    assert_eq!(relay.state.take_dirty(1), [ann]);
    assert_eq!(relay.state.take_dirty(9), [bob]);
    assert!(!relay.state.is_dirty());
    assert_eq!((relay.reads(ann), relay.reads(bob)), ("5 6 7".into(), "5 6 7".into()));
}

#[test]
fn a_full_connection_lags_is_pulled_when_it_has_drained_and_is_live_again_at_the_tail() {
    let mut relay = relay();
    let ann = relay.live("ann", 0);
    relay.news(batch(1, 1, 300), &[]);
    relay.news(batch(2, 3, 300), &[]);
    relay.news(batch(4, 4, 10), &[]);
    relay.write(ann, false);
    relay.state.on_beat(ann, &[]);
    assert_eq!(relay.effects(), [""; 0], "a beat pulls nothing while the socket is full");
    assert_eq!(relay.reads(ann), "1");
    assert_eq!(relay.effects(), ["pull 0 after 1"]);
    relay.news(batch(5, 5, 10), &[]);
    relay.news(pulled(&[ann], 1, 3), &["pull 0 after 3"]);
    relay.news(pulled(&[ann], 3, 5), &[]);
    relay.news(batch(6, 6, 10), &[]);
    assert_eq!((relay.reads(ann), relay.state.pulls()), ("2 3 4 5 6".into(), 0));
}

#[test]
fn a_join_below_the_tail_is_pulled_at_once() {
    let mut relay = relay();
    let ann = relay.connect("ann");
    assert_eq!(relay.attach(ann, "ann", 3, 5), ["answered 0", "join of 0 ends", "pull 0 after 3"]);
    relay.news(batch(6, 6, 10), &[]);
    relay.news(pulled(&[ann], 3, 6), &[]);
    assert_eq!(relay.reads(ann), "4 5 6");
}

#[test]
fn a_pull_that_the_store_cannot_serve_is_tried_again_at_the_next_tick() {
    let mut relay = relay();
    let ann = relay.connect("ann");
    relay.attach(ann, "ann", 3, 5);
    relay.news(FromChannel::Pulled { conns: vec![ann], after: 3, page: None }, &[]);
    relay.state.on_beat(ann, &[]);
    assert_eq!(relay.effects(), [""; 0]);
    relay.tick(200, &["pull 0 after 3"]);
    relay.tick(200, &[]);
}

#[test]
fn a_leave_of_who_was_put_out_meanwhile_is_answered() {
    let mut relay = relay();
    let ann = relay.live("ann", 4);
    relay.state.on_room_gone(ROOM);
    relay.effects();
    relay.state.on_left(ann, 2, ROOM);
    assert_eq!(relay.reads(ann), "Detached #2 NotJoined");
}

#[test]
fn a_page_of_a_channel_that_has_not_taken_up_the_subscribers_is_not_theirs() {
    let mut relay = relay();
    let ann = relay.connect("ann");
    relay.attach(ann, "ann", 3, 5);
    relay.state.on_channel_down(ROOM);
    relay.news(pulled(&[ann], 3, 6), &[]);
    relay.tick(200, &[]);
    assert_eq!((relay.reads(ann), relay.state.pulls()), (String::new(), 0));
    relay.news(adopted(&[(3, 1)], 1, 6), &["pull 0 after 3"]);
    relay.news(pulled(&[ann], 3, 6), &[]);
    assert_eq!(relay.reads(ann), "4 5 6");
    relay.state.on_beat(ann, &[Position { room: ROOM, epoch: Epoch(3), seq: 6 }]);
    assert_eq!(relay.reads(ann), "", "what it was given is not above the tail");
}

#[test]
fn pulls_of_a_room_that_died_are_not_waited_for() {
    let mut relay = relay();
    let ann = relay.connect("ann");
    for number in 2..7 {
        let (room, name, answer) = (RoomNumber(number), "room".parse().unwrap(), Bytes::new());
        relay.state.begin(ann, Pending { request: 1, room: Some(room), asks: Asks::Join });
        let (device, epoch, tail, cursor) = (key("ann"), Epoch(3), 5, number - 2);
        let attach = Attach {
            conn: ann,
            request: 1,
            device,
            member: false,
            met: Mark::default(),
            name,
            epoch,
            tail,
            cursor,
            answer,
        };
        relay.state.on_news(room, FromChannel::Attach(attach));
    }
    let pulls: Vec<String> = relay.effects().into_iter().filter(|effect| effect.starts_with("pull")).collect();
    assert_eq!(pulls, ["pull 0 after 0", "pull 0 after 1", "pull 0 after 2", "pull 0 after 3"]);
    relay.state.on_channel_down(RoomNumber(2));
    assert_eq!(relay.effects(), ["pull 0 after 4"]);
}

#[test]
fn a_leave_answers_the_cursor_and_a_late_page_is_not_taken_for_the_next_membership() {
    let mut relay = relay();
    let ann = relay.connect("ann");
    relay.attach(ann, "ann", 3, 5);
    relay.state.on_left(ann, 2, ROOM);
    assert_eq!((relay.effects(), relay.reads(ann)), (vec!["detached ann".to_owned()], "#2 left at 3".into()));
    assert!(!relay.state.knows(ROOM));
    relay.attach(ann, "ann", 1, 5);
    relay.news(pulled(&[ann], 3, 5), &[]);
    assert_eq!(relay.reads(ann), "");
    relay.news(pulled(&[ann], 1, 5), &[]);
    assert_eq!((relay.reads(ann), relay.state.pulls()), ("2 3 4 5".into(), 0));
    // The same cursor: either page does.
    relay.state.on_leave(ann, ROOM);
    relay.attach(ann, "ann", 1, 5);
    relay.state.on_leave(ann, ROOM);
    relay.attach(ann, "ann", 1, 5);
    relay.effects();
    relay.news(pulled(&[ann], 1, 5), &[]);
    relay.news(pulled(&[ann], 1, 5), &[]);
    assert_eq!((relay.reads(ann), relay.state.pulls()), ("2 3 4 5".into(), 0));
}

#[test]
fn a_retry_of_a_pull_does_not_outlive_its_membership() {
    let mut relay = relay();
    let ann = relay.connect("ann");
    relay.attach(ann, "ann", 3, 5);
    relay.news(FromChannel::Pulled { conns: vec![ann], after: 3, page: None }, &[]);
    relay.state.on_leave(ann, ROOM);
    assert_eq!(relay.attach(ann, "ann", 4, 5), ["detached ann", "answered 0", "join of 0 ends", "pull 0 after 4"]);
    relay.tick(200, &[]);
    relay.news(pulled(&[ann], 4, 5), &[]);
    relay.news(FromChannel::Pulled { conns: vec![ann], after: 5, page: None }, &[]);
    assert_eq!((relay.reads(ann), relay.state.pulls()), ("5".into(), 0));
    relay.news(batch(6, 6, 10), &[]);
    assert_eq!(relay.reads(ann), "6", "it is live");
}

#[test]
fn whoever_leaves_the_others_keep_their_places() {
    let mut relay = relay();
    let mut conns: Vec<Conn> = (0..8).map(|n| relay.live(&format!("user {n}"), 0)).collect();
    let mut seq = 0;
    for gone in [0, 6, 3, 1, 3, 0, 1, 0] {
        let conn = conns.remove(gone);
        if gone == 3 {
            relay.state.on_disconnect(conn)
        } else {
            assert!(relay.state.on_leave(conn, ROOM).is_some())
        }
        assert_eq!(relay.effects().len(), 1);
        seq += 1;
        relay.news(batch(seq, seq, 10), &[]);
        assert!(relay.reads(conn).len() <= "gone".len());
        for conn in &conns {
            assert_eq!(relay.reads(*conn), seq.to_string());
        }
        assert_eq!(relay.state.devices_in(ROOM).len(), conns.len());
    }
    assert!(!relay.state.knows(ROOM));
}

#[test]
fn a_dead_channels_requests_are_answered() {
    let mut relay = relay();
    let ann = relay.live("ann", 0);
    relay.begin(ann, 2, Asks::Publish(1));
    relay.begin(ann, 3, Asks::Fetch);
    relay.begin(ann, 4, Asks::Join);
    relay.state.begin(ann, Pending { request: 5, room: None, asks: Asks::Join });
    relay.state.begin(ann, Pending { request: 6, room: Some(RoomNumber(2)), asks: Asks::Fetch });
    // Who is in the room: the channel answers that.
    relay.begin(ann, 7, Asks::Rooms);
    relay.state.on_channel_down(ROOM);
    assert_eq!(relay.reads(ann), "#2 OutcomeUnknown #3 RoomUnavailable #4 RoomUnavailable #7 RoomUnavailable");
    assert_eq!(relay.effects(), ["answered 0", "answered 0", "answered 0", "join of 0 fails", "answered 0"]);
    assert_eq!((relay.state.pending(), relay.state.pending_of(ann)), (2, 2));
    relay.state.on_disconnect(ann);
    assert_eq!(relay.state.pending(), 0);
}

#[test]
fn a_request_to_follow_waits_on_when_one_of_its_rooms_is_rebuilt() {
    let mut relay = relay();
    let ann = relay.connect("ann");
    relay.state.begin(ann, Pending { request: 1, room: None, asks: Asks::Rooms });
    relay.begin(ann, 1, Asks::Follow);
    relay.state.on_channel_down(ROOM);
    assert_eq!(relay.effects(), ["answered 0", "join of 0 fails"]);
    assert_eq!((relay.reads(ann), relay.state.pending_of(ann)), (String::new(), 1));
}

#[test]
fn a_question_who_is_in_a_room_is_answered_when_that_is_rebuilt_or_its_user_is_put_out() {
    let mut relay = relay();
    let ann = relay.live("ann", 0);
    relay.begin(ann, 1, Asks::Rooms);
    relay.state.on_channel_down(ROOM);
    assert_eq!((relay.effects(), relay.reads(ann)), (vec!["answered 0".into()], "#1 RoomUnavailable".into()));
    relay.begin(ann, 2, Asks::Rooms);
    let (users, message) = (["ann".parse().unwrap()].into(), "out");
    relay.news(
        FromChannel::Detach { users, code: Code::Forbidden, message },
        &["answered 0", "detached ann", "0 lost 1 at 0 of 3"],
    );
    assert_eq!(relay.reads(ann), "#2 Forbidden Detached");
}

#[test]
fn who_leaves_a_room_that_he_asks_about_is_told_so_and_nothing_else_of_his_is_refused() {
    let mut relay = relay();
    let ann = relay.live("ann", 0);
    relay.begin(ann, 1, Asks::Rooms);
    relay.begin(ann, 2, Asks::Fetch);
    relay.state.on_leave(ann, ROOM);
    relay.state.not_watched(ann, 1, ROOM);
    relay.state.not_watched(ann, 1, ROOM);
    relay.state.not_watched(ann, 2, ROOM);
    assert_eq!((relay.reads(ann), relay.state.pending_of(ann)), ("#1 NotJoined".to_owned(), 1));
}

#[test]
fn a_publish_refused_for_now_holds_back_the_later_ones_of_its_room() {
    let mut relay = relay();
    let ann = relay.live("ann", 0);
    let passes = |relay: &mut Relay, request, nonce| {
        relay.begin(ann, request, Asks::Publish(nonce));
        relay.state.may_pass(ann, request, ROOM).is_ok()
    };
    assert!(passes(&mut relay, 2, 5) && passes(&mut relay, 3, 6));
    // The channel dies with both, and the client, which does not know yet, sends one more.
    relay.state.on_channel_down(ROOM);
    assert!(!passes(&mut relay, 4, 7));
    relay.news(refused(ann, 4, Code::HeldBack), &["answered 0", "answered 0", "answered 0"]);
    assert!(passes(&mut relay, 5, 5) && passes(&mut relay, 6, 6) && passes(&mut relay, 7, 7));
    // What is refused for good holds back nothing; what is given up, not for ever.
    relay.news(refused(ann, 5, Code::NonceConflict), &["answered 0"]);
    assert!(passes(&mut relay, 8, 8));
    relay.news(refused(ann, 8, Code::Busy), &["answered 0"]);
    relay.tick(200, &[]);
    assert!(!passes(&mut relay, 9, 9));
    relay.tick(100, &[]);
    assert!(passes(&mut relay, 10, 9));
    // It ends with the membership, and nothing passes for a connection that is gone.
    relay.news(refused(ann, 10, Code::Busy), &["answered 0"]);
    relay.state.on_leave(ann, ROOM);
    relay.attach(ann, "ann", 0, 0);
    assert!(passes(&mut relay, 11, 12));
    relay.state.on_disconnect(ann);
    assert!(!passes(&mut relay, 12, 13));
}

#[test]
fn the_next_channel_is_told_who_was_a_member() {
    let mut relay = relay();
    relay.live("ann", 5);
    relay.live("bob", 5);
    relay.news(FromChannel::Members(["bob".parse().unwrap()].into()), &[]);
    relay.state.on_channel_down(ROOM);
    let returning = |user, member| Returning { device: key(user), member, met: Mark { seq: 4, count: 2 } };
    assert_eq!(relay.state.devices_in(ROOM), [returning("ann", false), returning("bob", true)]);
}

#[test]
fn a_rebuilt_room_goes_on_from_the_cursors() {
    #[track_caller]
    fn check(adoption: FromChannel, want: &str, then: &[&str]) {
        let mut relay = relay();
        let ann = relay.live("ann", 5);
        relay.state.on_channel_down(ROOM);
        assert_eq!(
            relay.state.devices_in(ROOM),
            [Returning { device: key("ann"), member: false, met: Mark { seq: 4, count: 2 } }]
        );
        relay.news(adoption, then);
        assert_eq!(relay.reads(ann), want);
    }
    check(adopted(&[(3, 1)], 1, 5), "", &[]);
    check(adopted(&[(3, 1)], 1, 7), "", &["pull 0 after 5"]);
    check(adopted(&[(3, 1)], 8, 9), "gap 6-7 Trimmed", &["pull 0 after 7"]);
    check(adopted(&[(3, 1), (4, 5)], 1, 4), "gap 5-4 NewEpoch", &[]);
    check(adopted(&[(3, 1), (4, 5)], 1, 6), "gap 5-4 NewEpoch", &["pull 0 after 4"]);
    check(adopted(&[(4, 1)], 1, 0), "gap 1-0 NewEpoch", &[]);
}

#[test]
fn a_pull_under_way_at_a_death_is_made_again() {
    let mut relay = relay();
    let ann = relay.connect("ann");
    relay.attach(ann, "ann", 3, 5);
    relay.state.on_channel_down(ROOM);
    relay.news(adopted(&[(3, 1)], 1, 5), &["pull 0 after 3"]);
    relay.news(pulled(&[ann], 3, 5), &[]);
    assert_eq!((relay.reads(ann), relay.state.pulls()), ("4 5".into(), 0));
}

#[test]
fn a_lagging_subscriber_that_is_adopted_at_the_tail_is_live() {
    let mut relay = relay();
    let ann = relay.live("ann", 0);
    relay.news(batch(1, 1, 300), &[]);
    relay.news(batch(2, 2, 300), &[]);
    relay.state.on_channel_down(ROOM);
    // A `memory` room begins anew, and the subscriber stands at the tail of nothing.
    relay.news(adopted(&[(4, 1)], 1, 0), &[]);
    assert_eq!((relay.reads(ann), relay.effects()), ("1 gap 1-0 NewEpoch".into(), vec![]));
    relay.news(batch(1, 1, 10), &[]);
    assert_eq!((relay.reads(ann), relay.state.pulls()), ("1".into(), 0));
}

#[test]
fn a_successors_batch_that_comes_before_the_adoption_leaves_no_hole() {
    let mut relay = relay();
    let ann = relay.live("ann", 4);
    relay.state.on_channel_down(ROOM);
    // Somebody else's join has overtaken the adoption. The dead channel had stored 5, and told nobody.
    relay.news(batch(6, 6, 10), &[]);
    relay.news(adopted(&[(3, 1)], 1, 6), &["pull 0 after 4"]);
    relay.news(batch(7, 7, 10), &[]);
    relay.news(pulled(&[ann], 4, 7), &[]);
    assert_eq!(relay.reads(ann), "5 6 7");
    // Such a join is answered already; should its number have been used again, it is answered once more.
    relay.state.on_channel_down(ROOM);
    let bob = relay.connect("bob");
    assert_eq!(relay.attach(bob, "bob", 9, 9), ["answered 1", "join of 1 fails", "detached bob"]);
    assert_eq!((relay.reads(bob), relay.state.pending()), ("#1 RoomUnavailable".into(), 0));
}

#[test]
fn a_slow_reader_is_closed_and_then_killed() {
    let mut relay = relay();
    let ann = relay.live("ann", 0);
    relay.news(batch(1, 1, 10), &[]);
    relay.write(ann, false);
    relay.tick(999, &[]);
    relay.tick(1, &["finish 0"]);
    relay.news(batch(2, 2, 10), &[]);
    relay.tick(199, &[]);
    relay.tick(1, &["kill 0"]);
    assert_eq!(relay.reads(ann), "1 close SlowReader", "nothing follows the close");
    relay.state.on_disconnect(ann);
    let bob = relay.live("bob", 2);
    relay.effects();
    for seq in 3..20 {
        relay.news(batch(seq, seq, 10), &[]);
        relay.write(bob, false);
        relay.tick(900, &[]);
        assert_eq!(relay.reads(bob), seq.to_string(), "who reads at times is not slow");
    }
}

#[test]
fn a_client_that_asks_and_does_not_read_is_not_heard() {
    let mut relay = relay();
    let ann = relay.live("ann", 0);
    // Each answer makes room for the next request, but not in the client.
    for request in 2..6 {
        assert!(relay.state.may_ask(ann), "{request}");
        relay.begin(ann, request, Asks::Fetch);
        relay.news(FromChannel::Answer { conn: ann, request, frame: deliver(1, 100) }, &["answered 0"]);
        relay.write(ann, false);
    }
    assert!(!relay.state.may_ask(ann));
    assert_eq!(relay.effects(), [""; 0]);
    assert_eq!(relay.reads(ann), "1 1 1 1");
    assert_eq!(relay.effects(), ["answered 0"]);
    assert!(relay.state.may_ask(ann));
    // Nor while too many wait for an answer.
    (0..64).for_each(|request| relay.begin(ann, request, Asks::Fetch));
    assert!(!relay.state.may_ask(ann));
}

#[test]
fn a_goodbye_waits_for_the_answers() {
    let mut relay = relay();
    let ann = relay.live("ann", 0);
    relay.begin(ann, 2, Asks::Publish(1));
    relay.begin(ann, 3, Asks::Publish(2));
    relay.state.on_close(ann, Code::Goodbye, "", 0, Some(0));
    relay.news(stored(ann, 2), &["answered 0"]);
    relay.news(refused(ann, 3, Code::Busy), &["answered 0", "finish 0"]);
    assert_eq!(relay.reads(ann), "#2 ack #3 Busy close Goodbye");
    relay.state.on_close(ann, Code::Replaced, "", 0, None);
    assert_eq!((relay.reads(ann), relay.effects()), ("".into(), vec![]), "it is closed once");
}

#[test]
fn connections_that_are_gone_get_nothing_and_their_places_are_used_again() {
    let mut relay = relay();
    let ann = relay.live("ann", 0);
    relay.begin(ann, 2, Asks::Fetch);
    relay.news(batch(1, 1, 10), &[]);
    relay.state.on_disconnect(ann);
    assert_eq!(relay.effects(), ["detached ann"]);
    let bob = relay.live("bob", 1);
    assert_eq!((bob.slot, bob == ann), (ann.slot, false));
    assert_eq!(relay.state.take_dirty(9), [bob], "once, for its own join");
    relay.begin(bob, 2, Asks::Fetch);
    relay.news(stored(ann, 2), &[]);
    relay.news(FromChannel::Answer { conn: ann, request: 2, frame: deliver(9, 1) }, &[]);
    relay.news(pulled(&[ann], 1, 2), &[]);
    relay.state.on_left(ann, 3, ROOM);
    relay.state.on_written(ann, false, 0);
    relay.state.on_close(ann, Code::Goodbye, "", 0, None);
    relay.state.on_disconnect(ann);
    assert_eq!((relay.reads(bob), relay.effects(), relay.state.pending()), ("".into(), vec![], 1));
    // A join that is granted to one who is gone is taken back.
    assert_eq!(relay.attach(ann, "ann", 0, 0), ["detached ann"]);
    let mut out = BytesMut::new();
    out.extend_from_slice(&deliver(2, 1));
    relay.news(FromChannel::Answer { conn: bob, request: 2, frame: out.freeze() }, &["answered 0"]);
    assert_eq!(relay.reads(bob), "2");
}

#[test]
fn an_idle_connection_costs_a_tick_nothing_and_owns_little() {
    let mut relay = relay();
    let (ann, bob) = (relay.live("ann", 0), relay.live("bob", 0));
    relay.reads(ann);
    relay.tick(200, &[]);
    assert!(relay.state.watched.is_empty());
    let idle = relay.state.connection(ann).unwrap();
    assert_eq!((idle.rooms.capacity(), idle.pending.capacity(), idle.lagging.capacity()), (1, 0, 0));
    relay.news(batch(1, 1, 50), &[]);
    relay.write(bob, false);
    relay.write(bob, false);
    assert_eq!(relay.state.watched, [bob], "once, however often its socket refuses");
    relay.tick(200, &[]);
    assert_eq!(relay.state.watched, [bob], "for as long as that lasts");
    relay.reads(bob);
    relay.tick(200, &[]);
    assert!(relay.state.watched.is_empty());
}

#[test]
fn numbers_of_requests_need_not_rise() {
    let mut relay = relay();
    let ann = relay.live("ann", 0);
    for request in [7, 3, 9, 5] {
        assert!(!relay.state.is_pending(ann, request));
        relay.begin(ann, request, Asks::Publish(u64::from(request)));
        assert!(relay.state.is_pending(ann, request));
    }
    for request in [9, 3, 7] {
        relay.news(refused(ann, request, Code::TooLarge), &["answered 0"]);
        assert!(!relay.state.is_pending(ann, request) && relay.state.is_pending(ann, 5));
    }
    for request in 10..14 {
        assert!(relay.state.may_ask(ann));
        relay.begin(ann, request, Asks::Fetch);
    }
    assert!(!relay.state.may_ask(ann), "four fetches are enough");
    relay.news(refused(ann, 11, Code::Busy), &["answered 0"]);
    assert!(relay.state.may_ask(ann));
}

#[test]
fn a_batch_above_the_limit_goes_to_a_connection_with_nothing_queued() {
    let mut relay = relay();
    let ann = relay.live("ann", 0);
    relay.news(batch(1, 1, 500), &[]);
    assert_eq!(relay.reads(ann), "1");
    relay.news(batch(2, 2, 500), &[]);
    relay.news(batch(3, 3, 10), &[]);
    assert_eq!(relay.write(ann, true), "2", "behind that one the limit holds");
    assert_eq!(relay.effects(), ["pull 0 after 2"]);
}

mod pressure;
mod signals;

#[test]
fn from_whom_the_past_is_hidden_gets_a_gap_and_nothing_that_was_pulled_before() {
    let mut relay = relay();
    let ann = relay.connect("ann");
    assert_eq!(relay.attach(ann, "ann", 2, 9), ["answered 0", "join of 0 ends", "pull 0 after 2"]);
    let bob = relay.live("bob", 9);
    relay.write(ann, true);
    let hide = |first| {
        let hidden = ["ann", "bob"].map(|user| Hidden { device: key(user), first });
        FromChannel::Hide(hidden.into())
    };
    relay.news(hide(6), &["pull 0 after 5"]);
    assert_eq!(relay.reads(ann), "gap 3-5 NotYours");
    relay.news(pulled(&[ann], 2, 4), &[]);
    relay.news(hide(4), &[]);
    assert_eq!((relay.reads(ann).as_str(), relay.state.pulls()), ("", 1));
    relay.news(hide(10), &[]);
    assert_eq!((relay.reads(ann).as_str(), relay.state.pulls()), ("gap 6-9 NotYours", 0));
    relay.news(pulled(&[ann], 5, 9), &[]);
    relay.write(bob, true);
    // Both are live.
    relay.news(batch(10, 10, 10), &[]);
    assert_eq!((relay.reads(ann), relay.reads(bob)), ("10".into(), "10".into()));
}

mod sleeping;
