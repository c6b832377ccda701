//! Inputs in, effects out, each written as a line of text.

use bytes::Buf;
use parlor_protocol::{
    Body, Changed, DeviceTag, Epoch, Header, Kind, Nonce,
    frame::HEADER_BYTES,
    message::{ContentType, Deliver, Direction, GapReason, JoinFrom, Marked, Page, Reader, Readers, RecordKind},
};

use super::{publishing::content_hash, *};

mod changing;
use crate::{
    channel::history::NewRead,
    members::Member,
    message::{Batch, Fetch, FetchReaders, MarkRead, Publish, Signal},
    port::{EpochStart, Mark, Marks, Records, RoomMarks, Run, Trim},
    testkit::with_deliver,
    tiers::{SendRate, TierNumber},
};

mod fitting;
mod forgetting;
mod presence;
mod rates;
mod sleeping;

const UNIX: u64 = 5_000;

/// A room, its time and the writer's queue before it.
pub(super) struct Room {
    pub(super) state: State,
    now: Now,
    /// What the writer has not taken.
    pub(super) queue: Vec<Turn>,
    word: Arc<Word>,
}

fn limits() -> Limits {
    Limits {
        ring_records_max: 4,
        page_records: 2,
        page_records_max: 3,
        answers_per_device_max: 3,
        absent_devices_per_room_max: 1,
        reads_per_room_max: 2,
        hold_back_ms: 100,
        ..Limits::default()
    }
}

/// A room with so many records in the store, and a queue for two more.
fn room(durability: Durability, first: Seq, tail: Seq) -> Room {
    room_with(RoomOptions { durability, ..RoomOptions::default() }, Tiers::sending(SendRate::OFF), first, tail)
}

/// A room that knows so many people.
pub(super) fn room_of(name: &str, options: RoomOptions, extent: (Seq, Seq), known: u64) -> Room {
    room_like(name, options, Tiers::sending(SendRate::OFF), extent, known)
}

/// A room like that with such options, in an engine with such tiers.
fn room_with(options: RoomOptions, tiers: Tiers, first: Seq, tail: Seq) -> Room {
    room_like("room", options, tiers, (first, tail), 0)
}

fn room_like(name: &str, options: RoomOptions, tiers: Tiers, (first, tail): (Seq, Seq), known: u64) -> Room {
    let loaded = Loaded {
        room: RoomNumber(1),
        name: name.parse().unwrap(),
        options,
        generation: Generation(1),
        epochs: vec![EpochStart { epoch: Epoch(3), first: 1 }],
        first,
        tail,
        count: tail,
        time: UNIX,
        gone_count: 0,
        trimmed: first,
        bytes_before: 0,
        bytes_upto: 0,
        known,
        change: 0,
        announcements: Vec::new(),
    };
    // What a room with a store remembers of those who left is tested with their tables.
    let absent_devices_per_room_max = usize::from(options.durability == Durability::Memory);
    let limits = Limits { absent_devices_per_room_max, ..limits() };
    let word = Arc::<Word>::default();
    let setting = Setting {
        budget: Budget::new(2, 1 << 20),
        tiers: Arc::new(tiers),
        rates: Arc::default(),
        pools: Pools::new(&limits),
        limits: Arc::new(limits),
        word: word.clone(),
    };
    let state = State::new(loaded, 2, setting);
    Room { state, now: Now { unix_ms: UNIX, mono_ms: 0 }, queue: Vec::new(), word }
}

/// A synced room that ann has joined on arbiter 0 and bob on arbiter 1.
fn joined(tail: Seq) -> Room {
    let mut room = room(Durability::Synced, 1, tail);
    room.join("ann", 0, JoinFrom::Tail);
    room.answers("ann", vec![]);
    room.join("bob", 1, JoinFrom::Tail);
    room.answers("bob", vec![]);
    room
}

/// Subscribers of a channel before, all strangers.
pub(super) fn back(users: &[&str]) -> Vec<Returning> {
    users.iter().map(|user| Returning { device: key(user), member: false, met: Mark::default() }).collect()
}

pub(super) fn key(user: &str) -> DeviceKey {
    DeviceKey { user: user.parse().unwrap(), tag: DeviceTag(1) }
}

pub(super) fn conn(arbiter: u16) -> Conn {
    Conn { arbiter, slot: 7, serial: 7 }
}

fn answer(nonce: Nonce, seq: Seq, payload: &'static str) -> Answer {
    Answer { nonce, seq, time: UNIX, content_hash: content_hash(&publish("ann", 0, 0, nonce, payload)), count: seq }
}

pub(super) fn publish(user: &str, arbiter: u16, request: u32, nonce: Nonce, payload: &'static str) -> Publish {
    let (conn, device, payload) = (conn(arbiter), key(user), Bytes::from_static(payload.as_bytes()));
    Publish {
        conn,
        request,
        device,
        tier: TierNumber(0),
        nonce,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        epoch: Epoch(0),
        lifetime_ms: None,
        silent: false,
        remove: false,
        content_type: 1,
        payload,
    }
}

fn body<'a, B: Body<'a>>(frame: &'a [u8]) -> B {
    parlor_protocol::decode(&frame[HEADER_BYTES..]).unwrap()
}

impl Room {
    #[track_caller]
    pub(super) fn check(&mut self, input: Input, want: &[&str]) {
        let what = format!("{input:?}");
        assert_eq!(self.handle(input), want, "{what:.100}");
    }

    pub(super) fn handle(&mut self, input: Input) -> Vec<String> {
        self.state.handle(self.now, input);
        let mut lines = Vec::new();
        while let Some(effect) = self.state.poll() {
            lines.push(match effect {
                Effect::Relay { arbiter, news } => format!("{arbiter}: {}", text(news)),
                Effect::Append(turn) => {
                    let last = turn.first + turn.records.len() as u64 - 1;
                    let line = format!("append {}-{last}", turn.first);
                    self.queue.push(turn);
                    line
                }
                Effect::Read(NewRead { id, read }) => {
                    format!("read {id}: {}-{}, {} of them", read.start, read.end, read.records_max)
                }
                Effect::ReadTarget { id, seq } => format!("read {id}: target {seq}"),
                Effect::LoadAnswers(device) => format!("load {}", device.user),
                Effect::LoadMarks(user) => {
                    // Who has no marks is answered at once, and does not show.
                    self.state.handle(self.now, Input::Marks { user, marks: Ok(Marks::default()) });
                    continue;
                }
                // Each room of these tests has its own where it matters.
                Effect::SaveMarksIn(_) => continue,
                Effect::LoadRoomMarks(fetch, users_max) => format!("load marks of {users_max} for #{}", fetch.request),
                Effect::SaveMarks(save) => {
                    let user = |(user, marks): &(Name, Marks)| {
                        format!("{user} {}/{}/{}", marks.read.seq, marks.delivered.seq, marks.sent.seq)
                    };
                    format!("save {}", save.marks.iter().map(user).collect::<Vec<_>>().join(", "))
                }
                Effect::TellUser { user, except, .. } => {
                    format!("tell {user} except {:?}", except.map(|conn| conn.arbiter))
                }
                Effect::TellHost(..) => "tell the host".into(),
                Effect::Trim(trim) => format!("trim below {} to {} bytes", trim.first, trim.bytes_max),
                Effect::LoadRights(device) => format!("load rights of {}", device.user),
                Effect::Presence(effect) => presence::line(effect),
                Effect::Told(id) => format!("told {id}"),
                Effect::EndTurn => "end turn".into(),
                Effect::Sleep(rest) => format!("{rest:?}"),
                Effect::Stop => "stop".into(),
            });
        }
        lines
    }

    pub(super) fn join(&mut self, user: &str, arbiter: u16, from: JoinFrom) -> Vec<String> {
        self.handle(Input::Join(Join { conn: conn(arbiter), request: 1, device: key(user), from, follows: false }))
    }

    pub(super) fn answers(&mut self, user: &str, answers: Vec<Answer>) -> Vec<String> {
        let answers = Ok((0..).zip(answers).collect());
        self.handle(Input::Answers { device: key(user), answers })
    }

    #[track_caller]
    pub(super) fn say(
        &mut self,
        (user, arbiter): (&str, u16),
        request: u32,
        nonce: Nonce,
        payload: &'static str,
        want: &[&str],
    ) {
        self.check(Input::Publish(publish(user, arbiter, request, nonce, payload)), want);
    }

    #[track_caller]
    fn ann(&mut self, request: u32, nonce: Nonce, want: &[&str]) {
        self.say(("ann", 0), request, nonce, "x", want);
    }

    /// The turn ends and the store has it.
    pub(super) fn commit(&mut self) -> Vec<String> {
        let mut lines = self.handle(Input::EndOfTurn);
        self.queue.clear();
        lines.extend(self.handle(Input::Committed(self.state.given)));
        lines
    }

    fn detach(&mut self, user: &str, arbiter: u16) {
        // If he has sent something, what is known of him is saved when the turn ends.
        let lines = self.handle(Input::Detached { arbiter, device: key(user) });
        assert!(lines.is_empty() || lines == ["end turn"], "{lines:?}");
    }
}

/// What a relay hears, in short.
fn text(news: FromChannel) -> String {
    match news {
        FromChannel::Attach(Attach { device, tail, cursor, mut answer, .. }) => {
            let header = Header::from_bytes(answer.first_chunk().unwrap());
            let size = HEADER_BYTES + header.len as usize;
            let told = if header.kind == Kind::Attached as u16 {
                let attached: Attached<'_> = body(&answer[..size]);
                (attached.tail, attached.cursor, attached.newest_nonce)
            } else {
                let joined: Joined<'_> = body(&answer[..size]);
                (joined.tail, joined.cursor, joined.newest_nonce)
            };
            assert_eq!((told.0, told.1), (tail, cursor));
            let mut line = format!("attach {} at {cursor} of {tail}", device.user);
            if let Some(nonce) = told.2 {
                line += &format!(", nonce {nonce}");
            }
            answer.advance(size);
            if !answer.is_empty() {
                let gap: Gap<'_> = body(&answer);
                line += &format!(", gap {}-{} {:?}", gap.from, gap.to, gap.why);
            }
            line
        }
        FromChannel::Committed { batch, stored, .. } => {
            let mut parts = Vec::new();
            if let Some(Batch { first, last, frames }) = batch {
                parts.push(format!("batch {}", seqs(&frames)));
                assert!(seqs(&frames).starts_with(&first.to_string()) && seqs(&frames).ends_with(&last.to_string()));
            }
            for stored in stored {
                let again = if stored.duplicate { " again" } else { "" };
                parts.push(format!("#{} stored at {}{again}", stored.request, stored.seq));
            }
            parts.join(", ")
        }
        FromChannel::Refused { request, code: Code::RateLimited, retry_after_ms, .. } => {
            format!("#{request} RateLimited for {retry_after_ms}")
        }
        FromChannel::Refused { request, code, .. } => format!("#{request} {}", code.name().unwrap()),
        FromChannel::Answer { request, frame, .. } => {
            let kind = Header::from_bytes(frame.first_chunk().unwrap()).kind;
            if kind == Kind::Marked as u16 {
                let Marked { read, unread, .. } = body(&frame);
                return format!("#{request} read {read}, {unread} unread");
            }
            if kind == Kind::Readers as u16 {
                let readers: Readers<'_> = body(&frame);
                let reader = |reader: &Reader<'_>| format!("{} {}/{}", reader.user, reader.read, reader.delivered);
                return format!(
                    "#{request} readers {}",
                    readers.readers.0.iter().map(reader).collect::<Vec<_>>().join(", ")
                );
            }
            assert_eq!(kind, Kind::Page as u16);
            let page: Page<'_> = body(&frame);
            let gaps: Vec<_> =
                page.gaps.0.iter().map(|gap| format!(" gap {}-{}{}", gap.from, gap.to, not_yours(gap.why))).collect();
            format!("#{request} page {}{}, next {:?}, tail {}", seqs(page.records), gaps.concat(), page.next, page.tail)
        }
        FromChannel::Signal(signal) => format!("signal {} of {}", signal.key, signal.device.user),
        FromChannel::SignalRefused { request, code, .. } => format!("signal #{request} {}", code.name().unwrap()),
        FromChannel::Notice { .. } => unreachable!("made by the shell"),
        FromChannel::Pulled { conns, after, page: None } => format!("{} pulled nothing after {after}", conns.len()),
        FromChannel::Pulled { conns, after, page: Some((last, frames)) } => {
            format!("{} pulled {} after {after} to {last}", conns.len(), seqs(&frames))
        }
        FromChannel::Detach { users, code, .. } => {
            let mut users: Vec<&str> = users.iter().map(|user| &**user).collect();
            users.sort_unstable();
            format!("detach {} {}", users.join(" "), code.name().unwrap())
        }
        FromChannel::Members(users) => {
            format!("members {}", users.iter().map(|user| &**user).collect::<Vec<_>>().join(" "))
        }
        FromChannel::Hide(hidden) => {
            let mut hidden: Vec<_> =
                hidden.iter().map(|one| format!(" {} below {}", one.device.user, one.first)).collect();
            hidden.sort_unstable();
            format!("hide from{}", hidden.concat())
        }
        FromChannel::Adopted { first, tail, .. } => format!("adopted {first}-{tail}"),
    }
}

fn not_yours(why: GapReason) -> &'static str {
    if why == GapReason::NOT_YOURS { " not yours" } else { "" }
}

/// The seqs of `Deliver` frames.
fn seqs(mut frames: &[u8]) -> String {
    let mut seqs = Vec::new();
    while let Some(header) = frames.first_chunk() {
        let size = HEADER_BYTES + Header::from_bytes(header).len as usize;
        let (frame, rest) = frames.split_at(size);
        if Header::from_bytes(header).kind == Kind::Deliver as u16 {
            seqs.push(with_deliver(frame, |deliver| deliver.seq).to_string());
        }
        frames = rest;
    }
    if seqs.is_empty() { "none".into() } else { seqs.join(" ") }
}

pub(super) fn records(first: Seq, last: Seq) -> Records {
    let frame = |seq| {
        let deliver = Deliver {
            room: RoomNumber(1),
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
            payload: b"x",
            extensions: Extensions::default(),
        };
        parlor_protocol::to_bytes(0, &deliver)
    };
    let frames = (first..=last).map(frame).collect::<Vec<_>>().concat().into();
    Records { runs: vec![Run::Frames { first, last, frames }], next: None }
}

#[test]
fn a_join_loads_the_devices_answers_first_and_begins_where_it_says() {
    #[track_caller]
    fn check(from: JoinFrom, want: &str) {
        let mut room = room(Durability::Synced, 4, 9);
        assert_eq!(room.join("ann", 0, from), ["load ann"]);
        assert_eq!(room.answers("ann", vec![answer(5, 8, "x")]), [format!("0: attach ann at {want}")], "{from:?}");
    }
    check(JoinFrom::Tail, "9 of 9, nonce 5");
    check(JoinFrom::Newest(2), "7 of 9, nonce 5");
    check(JoinFrom::Newest(99), "3 of 9, nonce 5");
    check(JoinFrom::Seq(6), "5 of 9, nonce 5");
    check(JoinFrom::Seq(1), "3 of 9, nonce 5, gap 1-3 Trimmed");
    check(JoinFrom::Position(Epoch(3), 9), "9 of 9, nonce 5");
    check(JoinFrom::Position(Epoch(3), 2), "3 of 9, nonce 5, gap 3-3 Trimmed");
    check(JoinFrom::Position(Epoch(3), 10), "9 of 9, nonce 5, gap 10-9 AboveTail");
    check(JoinFrom::Position(Epoch(2), 9), "3 of 9, nonce 5, gap 1-3 NewEpoch");
}

#[test]
fn nothing_is_visible_before_it_is_stored() {
    let mut room = joined(0);
    room.ann(2, 1, &["end turn"]);
    room.say(("bob", 1), 3, 1, "y", &[]);
    assert_eq!(room.join("cem", 0, JoinFrom::Tail), ["load cem"]);
    assert_eq!(room.answers("cem", vec![]), ["0: attach cem at 0 of 0"]);
    room.check(Input::EndOfTurn, &["append 1-2"]);
    room.check(Input::Pull { conn: conn(0), after: 0 }, &["0: 1 pulled none after 0 to 0"]);
    let fetch =
        Fetch { conn: conn(0), request: 4, device: key("ann"), start: None, direction: Direction::Forward, limit: 0 };
    room.check(Input::Fetch(fetch.clone()), &["0: #4 page none, next None, tail 0"]);
    let want = ["0: batch 1 2, #2 stored at 1", "1: batch 1 2, #3 stored at 2"];
    room.check(Input::Committed(2), &want);
    room.check(Input::Committed(2), &[]);
    room.check(Input::Fetch(fetch), &["0: #4 page 1 2, next None, tail 2"]);
}

#[test]
fn a_turn_that_does_not_end_is_committed_in_pieces() {
    let mut room = room(Durability::Memory, 1, 0);
    room.join("ann", 0, JoinFrom::Tail);
    let most = RECORDS_PER_TURN_MAX as u64;
    room.ann(1, 1, &["end turn"]);
    for nonce in 2..most {
        room.ann(1, nonce, &[]);
    }
    let told = room.handle(Input::Publish(publish("ann", 0, 1, most, "x")));
    let batch: String = (1..=most).map(|seq| format!(" {seq}")).collect();
    assert!(told[0].starts_with(&format!("0: batch{batch}, ")), "{told:?}");
    room.ann(2, most + 1, &[]);
    let next = most + 1;
    room.check(Input::EndOfTurn, &[&format!("0: batch {next}, #2 stored at {next}")]);
}

#[test]
fn what_is_committed_together_is_one_batch_and_a_batch_goes_where_subscribers_are() {
    let mut room = room(Durability::Synced, 1, 0);
    room.join("ann", 0, JoinFrom::Tail);
    room.answers("ann", vec![]);
    room.ann(2, 1, &["end turn"]);
    room.check(Input::EndOfTurn, &["append 1-1"]);
    room.ann(3, 2, &["end turn"]);
    room.check(Input::EndOfTurn, &["append 2-2"]);
    room.check(Input::Committed(2), &["0: batch 1 2, #2 stored at 1, #3 stored at 2"]);
    room.queue.clear();
    // A sender that left still hears of his message; nobody else is there.
    room.ann(4, 3, &["end turn"]);
    room.detach("ann", 0);
    room.check(Input::EndOfTurn, &["append 3-3"]);
    room.check(Input::Committed(3), &["0: #4 stored at 3"]);
}

#[test]
fn a_repeat_gets_the_first_answer_and_nothing_else_passes_for_one() {
    let mut room = joined(0);
    room.ann(2, 5, &["end turn"]);
    room.ann(3, 5, &[]);
    room.say(("ann", 0), 4, 5, "other", &["0: #4 NonceConflict"]);
    room.ann(5, 4, &["0: #5 NonceTooOld"]);
    room.check(Input::EndOfTurn, &["append 1-1"]);
    room.check(Input::Committed(1), &["0: batch 1, #2 stored at 1, #3 stored at 1 again", "1: batch 1"]);
    room.ann(6, 5, &["0: #6 stored at 1 again"]);
    room.say(("ann", 0), 7, 5, "other", &["0: #7 NonceConflict"]);
    // Another device's nonces are its own.
    room.say(("bob", 1), 8, 5, "x", &["end turn"]);
    // Three answers are remembered.
    room.queue.clear();
    room.commit();
    for nonce in 6..9 {
        room.ann(9, nonce, &["end turn"]);
        room.commit();
    }
    room.ann(10, 5, &["0: #10 NonceTooOld"]);
    room.ann(11, 6, &["0: #11 stored at 3 again"]);
}

#[test]
fn a_full_queue_refuses_and_what_comes_behind_is_held_back() {
    let mut room = joined(0);
    room.ann(2, 1, &["end turn"]);
    room.ann(3, 2, &[]);
    room.ann(4, 3, &["0: #4 Busy"]);
    room.commit();
    room.ann(5, 4, &["0: #5 HeldBack"]);
    room.say(("bob", 1), 6, 4, "x", &["end turn"]);
    room.ann(7, 3, &[]);
    room.commit();
    room.ann(8, 4, &["end turn"]);
    room.ann(9, 5, &[]);
    room.ann(10, 6, &["0: #10 Busy"]);
    room.commit();
    room.now.mono_ms = 99;
    room.ann(11, 7, &["0: #11 HeldBack"]);
    room.now.mono_ms = 100;
    room.ann(12, 7, &["end turn"]);
    room.commit();
    room.ann(13, 6, &["0: #13 NonceTooOld"]);
}

#[test]
fn what_is_refused_for_good_at_last_holds_nothing_back() {
    let mut room = joined(0);
    room.ann(2, 1, &["end turn"]);
    room.ann(3, 2, &[]);
    room.say(("ann", 0), 4, 3, "long", &["0: #4 Busy"]);
    room.commit();
    room.ann(5, 4, &["0: #5 HeldBack"]);
    room.state.options.payload_bytes_max = 3;
    room.say(("ann", 0), 6, 3, "long", &["0: #6 TooLarge"]);
    room.ann(7, 4, &["end turn"]);
}

#[test]
fn a_publish_refused_while_answers_are_loaded_is_not_overtaken() {
    let mut room = room(Durability::Synced, 1, 2);
    let want = ["load ann", "0: adopted 1-2"];
    room.check(Input::Adopt { arbiter: 0, devices: back(&["ann", "ann"]) }, &want);
    room.ann(2, 6, &["0: #2 RoomUnavailable"]);
    room.answers("ann", vec![answer(5, 2, "x")]);
    room.ann(3, 7, &["0: #3 HeldBack"]);
    room.ann(4, 6, &["end turn"]);
    room.ann(5, 7, &[]);
    // One that was stored before the rebuild releases what was held back for it, too.
    let mut room = self::room(Durability::Synced, 1, 2);
    room.check(Input::Adopt { arbiter: 0, devices: back(&["ann"]) }, &want);
    room.ann(2, 5, &["0: #2 RoomUnavailable"]);
    room.answers("ann", vec![answer(5, 2, "x")]);
    room.ann(3, 6, &["0: #3 HeldBack"]);
    room.ann(4, 5, &["0: #4 stored at 2 again"]);
    room.ann(5, 6, &["end turn"]);
}

#[test]
fn a_failed_store_leaves_the_outcome_unknown_and_takes_nothing_more() {
    let mut room = joined(0);
    room.ann(2, 1, &["end turn"]);
    room.check(Input::EndOfTurn, &["append 1-1"]);
    room.ann(3, 1, &[]);
    room.ann(4, 2, &["end turn"]);
    let error = StoreError::Poisoned("a test".into());
    let want = ["0: #2 OutcomeUnknown", "0: #4 OutcomeUnknown", "0: #3 OutcomeUnknown"];
    room.check(Input::Failed(error.clone()), &want);
    room.check(Input::EndOfTurn, &[]);
    room.check(Input::Failed(error), &[]);
    room.ann(5, 1, &["0: #5 OutcomeUnknown"]);
    room.ann(6, 3, &["0: #6 StoreUnavailable"]);
    room.check(Input::Committed(1), &[]);
    room.queue.clear();
    assert_eq!(room.state.budget.records(), 0, "no place is kept");
    // What is stored can still be read.
    assert_eq!(room.join("cem", 1, JoinFrom::Tail), ["load cem"]);
    assert_eq!(room.answers("cem", vec![]), ["1: attach cem at 0 of 0"]);
}

#[test]
fn a_channel_that_the_store_refuses_makes_way_for_another() {
    let mut room = joined(0);
    room.ann(2, 1, &["end turn"]);
    room.check(Input::EndOfTurn, &["append 1-1"]);
    let error = StoreError::Damaged("a test".into());
    room.check(Input::Failed(error), &["0: #2 OutcomeUnknown", "stop"]);
}

#[test]
fn a_memory_room_keeps_its_ring_and_some_who_left() {
    let mut room = room(Durability::Memory, 1, 0);
    assert_eq!(room.join("ann", 0, JoinFrom::Tail), ["0: attach ann at 0 of 0"]);
    for nonce in 1..=6 {
        room.ann(2, nonce, &["end turn"]);
        room.check(Input::EndOfTurn, &[&format!("0: batch {nonce}, #2 stored at {nonce}")]);
    }
    assert_eq!(room.join("bob", 1, JoinFrom::Seq(1)), ["1: attach bob at 2 of 6, gap 1-2 Trimmed"]);
    room.check(Input::Pull { conn: conn(1), after: 0 }, &["1: 1 pulled none after 0 to 2"]);
    room.check(Input::Pull { conn: conn(1), after: 2 }, &["1: 1 pulled 3 4 5 after 2 to 5"]);
    room.detach("ann", 0);
    assert_eq!(room.join("ann", 0, JoinFrom::Tail), ["0: attach ann at 6 of 6, nonce 6"]);
    room.ann(3, 6, &["0: #3 stored at 6 again"]);
    // One who left is remembered.
    room.detach("ann", 0);
    room.detach("bob", 1);
    assert_eq!((room.state.devices(), room.state.subscribers()), (1, 0));
}

#[test]
fn time_never_goes_back_and_silent_messages_do_not_count() {
    let mut room = joined(0);
    let mut told = Vec::new();
    for (nonce, unix_ms, silent) in [(1, 100, false), (2, 7_000, true), (3, 6_000, false), (4, 7_001, true)] {
        room.now.unix_ms = unix_ms;
        room.state.handle(room.now, Input::Publish(Publish { silent, ..publish("ann", 0, 1, nonce, "x") }));
        room.state.handle(room.now, Input::EndOfTurn);
        while let Some(effect) = room.state.poll() {
            if let Effect::Append(turn) = effect {
                told.push(with_deliver(&turn.frames, |deliver| (deliver.time, deliver.count)));
            }
        }
    }
    assert_eq!(told, [(UNIX, 1), (7_000, 1), (7_000, 2), (7_001, 2)]);
}

#[test]
fn a_devices_answers_are_loaded_once_and_dropped_with_it() {
    let mut room = room(Durability::Synced, 1, 0);
    assert_eq!(room.join("ann", 0, JoinFrom::Tail), ["load ann"]);
    assert_eq!(room.join("ann", 1, JoinFrom::Tail), [""; 0]);
    assert_eq!(room.answers("ann", vec![]), ["0: attach ann at 0 of 0", "1: attach ann at 0 of 0"]);
    room.ann(2, 1, &["end turn"]);
    room.detach("ann", 0);
    room.detach("ann", 1);
    assert_eq!(room.state.devices(), 1, "the store does not know of its message yet");
    room.commit();
    assert_eq!((room.state.devices(), room.state.subscribers()), (0, 0));
    room.ann(3, 2, &["0: #3 NotJoined"]);
    assert_eq!(room.join("ann", 0, JoinFrom::Tail), ["load ann"], "the store has to be asked again");
}

#[test]
fn a_join_whose_answers_cannot_be_loaded_is_refused_and_leaves_nothing() {
    let mut room = room(Durability::Synced, 1, 0);
    room.join("ann", 0, JoinFrom::Tail);
    room.check(Input::Answers { device: key("ann"), answers: Err(StoreError::Busy) }, &["0: #1 Busy"]);
    assert_eq!((room.state.devices(), room.state.subscribers()), (0, 0));
}

#[test]
fn an_answer_that_was_asked_for_before_a_device_left_is_not_taken_for_a_newer_one() {
    let mut room = room(Durability::Synced, 1, 0);
    // Adopted, gone and back: two loads would be under way, and the older might be answered last.
    room.check(Input::Adopt { arbiter: 0, devices: back(&["ann"]) }, &["load ann", "0: adopted 1-0"]);
    room.detach("ann", 0);
    assert_eq!(room.join("ann", 0, JoinFrom::Tail), [""; 0], "one load at a time");
    assert_eq!(room.answers("ann", vec![]), ["0: attach ann at 0 of 0"]);
    room.ann(2, 1, &["end turn"]);
    room.commit();
    room.detach("ann", 0);
    assert_eq!(room.join("ann", 0, JoinFrom::Tail), ["load ann"]);
    assert_eq!(room.answers("ann", vec![answer(1, 1, "x")]), ["0: attach ann at 1 of 1, nonce 1"]);
    room.ann(3, 1, &["0: #3 stored at 1 again"]);
    // Gone while it is loaded: nothing is left behind.
    room.detach("ann", 0);
    room.check(Input::Adopt { arbiter: 0, devices: back(&["ann"]) }, &["load ann", "0: adopted 1-1"]);
    room.detach("ann", 0);
    room.answers("ann", vec![]);
    assert_eq!(room.state.devices(), 0);
}

#[test]
fn cold_pulls_of_one_page_share_a_read() {
    let mut room = room(Durability::Synced, 1, 9);
    room.check(Input::Pull { conn: conn(0), after: 2 }, &["read 1: 3-9, 3 of them"]);
    room.check(Input::Pull { conn: conn(1), after: 2 }, &[]);
    room.check(Input::Pull { conn: conn(1), after: 3 }, &["read 2: 4-9, 3 of them"]);
    room.check(Input::Pull { conn: conn(0), after: 5 }, &["0: 1 pulled nothing after 5"]);
    let read = |id, records| Input::Read { id, records };
    let want = ["0: 1 pulled 3 4 5 after 2 to 5", "1: 1 pulled 3 4 5 after 2 to 5"];
    room.check(read(1, Ok(records(3, 5))), &want);
    room.check(read(2, Err(StoreError::Busy)), &["1: 1 pulled nothing after 3"]);
    room.check(read(2, Ok(records(3, 5))), &[]);
    assert_eq!(room.state.reading(), 0);
}

/// A room whose store has 1 to 4, of which 1 is trimmed, and whose ring has 5 to 8.
fn hot_and_cold() -> Room {
    let mut room = room(Durability::Synced, 2, 4);
    room.join("ann", 0, JoinFrom::Tail);
    room.answers("ann", vec![]);
    for nonce in 1..=4 {
        room.ann(1, nonce, &["end turn"]);
        room.commit();
    }
    room
}

#[test]
fn a_fetch_reads_both_ways_out_of_the_ring_and_out_of_the_store() {
    use Direction::{Backward, Forward};
    #[track_caller]
    fn check(start: Option<Seq>, direction: Direction, limit: u32, want: &str) {
        let fetch = Fetch { conn: conn(0), request: 1, device: key("ann"), start, direction, limit };
        hot_and_cold().check(Input::Fetch(fetch), &[want]);
    }
    check(Some(5), Forward, 0, "0: #1 page 5 6, next Some(7), tail 8");
    check(Some(6), Forward, 99, "0: #1 page 6 7 8, next None, tail 8");
    check(Some(9), Forward, 0, "0: #1 page none, next None, tail 8");
    check(Some(u64::MAX), Forward, 0, "0: #1 page none, next None, tail 8");
    check(None, Forward, 0, "read 1: 2-8, 2 of them");
    check(Some(4), Forward, 1, "read 1: 4-8, 1 of them");
    check(Some(1), Forward, 0, "0: #1 page none gap 1-1, next Some(2), tail 8");
    check(Some(0), Forward, 0, "0: #1 page none gap 1-1, next Some(2), tail 8");
    check(None, Backward, 0, "0: #1 page 7 8, next Some(6), tail 8");
    check(Some(u64::MAX), Backward, 1, "0: #1 page 8, next Some(7), tail 8");
    check(Some(7), Backward, 3, "0: #1 page 5 6 7, next Some(4), tail 8");
    check(Some(6), Backward, 3, "read 1: 6-2, 3 of them");
    check(Some(1), Backward, 3, "0: #1 page none gap 1-1, next None, tail 8");
    check(Some(0), Backward, 3, "0: #1 page none, next None, tail 8");
}

#[test]
fn a_backward_page_that_ends_at_the_rings_edge_looks_no_further() {
    let mut room = hot_and_cold();
    let fetch = |start| {
        let direction = Direction::Backward;
        Input::Fetch(Fetch { conn: conn(0), request: 1, device: key("ann"), start: Some(start), direction, limit: 1 })
    };
    room.check(fetch(5), &["0: #1 page 5, next Some(4), tail 8"]);
    room.check(fetch(4), &["read 1: 4-2, 1 of them"]);
}

#[test]
fn a_page_out_of_the_store_tells_the_tail_that_it_was_read_to() {
    let mut room = hot_and_cold();
    let fetch = Fetch {
        conn: conn(0),
        request: 1,
        device: key("ann"),
        start: Some(4),
        direction: Direction::Forward,
        limit: 3,
    };
    room.check(Input::Fetch(fetch), &["read 1: 4-8, 3 of them"]);
    room.ann(2, 9, &["end turn"]);
    room.commit();
    // Had it told 9, a client that goes on behind the tail would never see it.
    let records = Ok(records(4, 8));
    room.check(Input::Read { id: 1, records }, &["0: #1 page 4 5 6 7 8, next None, tail 8"]);
}

#[test]
fn a_pull_of_what_is_trimmed_tells_the_gap_first() {
    let mut room = hot_and_cold();
    room.check(Input::Pull { conn: conn(0), after: 0 }, &["0: 1 pulled none after 0 to 1"]);
    room.check(Input::Pull { conn: conn(0), after: 4 }, &["0: 1 pulled 5 6 7 after 4 to 7"]);
    room.check(Input::Pull { conn: conn(0), after: 7 }, &["0: 1 pulled 8 after 7 to 8"]);
    room.check(Input::Pull { conn: conn(0), after: 8 }, &["0: 1 pulled none after 8 to 8"]);
}

#[test]
fn the_content_hash_is_what_stores_hold() {
    assert_eq!(content_hash(&publish("ann", 0, 0, 1, "x")), 0x93fc_d650_ac62_1b78);
    // All lengths are hashed in the same way: kind, refers_to, lifetime_ms, flags, content type, payload.
    for len in [0, 1, 234, 235, 236, 5_000] {
        let payload = Bytes::from(vec![b'p'; len]);
        let publish = Publish {
            kind: RecordKind::REACTION,
            refers_to: 7,
            lifetime_ms: Some(9),
            remove: true,
            payload: payload.clone(),
            ..publish("ann", 0, 0, 1, "")
        };
        let fields: [&[u8]; 6] =
            [&3u16.to_le_bytes(), &7u64.to_le_bytes(), &9u64.to_le_bytes(), &[2], &1u16.to_le_bytes(), &payload];
        assert_eq!(content_hash(&publish), xxhash_rust::xxh3::xxh3_64(&fields.concat()), "{len} bytes");
    }
}

mod receipts;
mod unread;
