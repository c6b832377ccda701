#![expect(clippy::cast_possible_truncation, reason = "a test's numbers are small")]
//! The pure state against a server of the test's own, under the test's own time.

mod asking;
mod connection;
mod following;
mod marking;
mod receiving;
mod resuming;
mod sending;
mod servers;
mod simulation;
mod storing;
mod uploading;
mod watching;

use std::time::Duration;

use bytes::BytesMut;
use parlor_protocol::{
    Body, Code, DeviceTag, Epoch, Extensions, Frame, Kind, List, Name, Nonce, RoomNumber, Seq, Token, decode, encode,
    message::{self, ContentType, Durability, GapReason, JoinFrom, Limits, PageGap, RecordKind},
    split,
};

use super::{
    config::Config,
    effect::{Effect, Now, RoomKey, RoomKeys, Ticket},
    error::{ConnectError, PublishError, RequestError},
    event::{Acked, Event, Gap, Outgoing},
    question::{Answer, Ask, Question},
    reading::Standing,
    servers::Attempt,
    state::State,
    wire::Incoming,
};

const ROOM: RoomNumber = RoomNumber(7);
const EPOCH: Epoch = Epoch(3);

fn ext<'a>() -> Extensions<'a> {
    Extensions::default()
}

/// A client's state, the frames that it sent, and the effects that it wanted, each list cleared by looking at it.
struct Lab {
    state: State,
    ms: u64,
    effects: Vec<Effect>,
    /// The attempts that were dialed and have no answer, oldest first.
    dialed: Vec<Attempt>,
}

/// A publish as it was sent: request, nonce, text.
type Sent = (u32, Nonce, String);

impl Lab {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new("10.0.0.1:1", Name::parse("ann").unwrap());
        change(&mut config);
        let mut lab = Self {
            state: State::new(config, RoomKeys::starting_at(100), 42),
            ms: 0,
            effects: Vec::new(),
            dialed: Vec::new(),
        };
        lab.state.handle_start(lab.now());
        lab.collect();
        lab
    }

    /// Connected, and in one room, at the beginning of its log.
    fn joined() -> Self {
        let mut lab = Self::new();
        lab.connect(false);
        lab.state.handle_join(lab.now(), 0, 1, Name::parse("lobby").unwrap(), JoinFrom::Tail);
        lab.answer_join(EPOCH, 0, None);
        lab.effects();
        lab
    }

    fn now(&self) -> Now {
        Now { at: Duration::from_millis(self.ms), unix_us: 1_000_000 + self.ms * 1_000 }
    }

    fn collect(&mut self) {
        while let Some(effect) = self.state.poll() {
            match effect {
                Effect::Dial(attempt, _) => self.dialed.push(attempt),
                Effect::GiveUp(attempt) => self.dialed.retain(|of| *of != attempt),
                Effect::HangUp => self.dialed.clear(),
                _ => {}
            }
            self.effects.push(effect);
        }
    }

    fn effects(&mut self) -> Vec<Effect> {
        self.collect();
        std::mem::take(&mut self.effects)
    }

    fn events(&mut self) -> Vec<Event> {
        let effects = self.effects().into_iter();
        effects.filter_map(|effect| if let Effect::Event(_, event, _) = effect { Some(event) } else { None }).collect()
    }

    /// Messages as their seqs, gaps as their ranges.
    fn received(&mut self) -> Vec<(Seq, Seq)> {
        let events = self.events().into_iter();
        events
            .filter_map(|event| match event {
                Event::Message(message) => Some((message.seq, message.seq)),
                Event::Gap(gap) => Some((gap.from, gap.to)),
                _ => None,
            })
            .collect()
    }

    fn outcomes(&mut self) -> Vec<(Ticket, Result<Seq, PublishError>)> {
        let effects = self.effects().into_iter();
        effects
            .filter_map(|effect| match effect {
                Effect::Stalled(ticket) => Some((ticket, Err(PublishError::Busy))),
                Effect::Sent(ticket, outcome) => Some((ticket, outcome.map(|acked: Acked| acked.seq))),
                _ => None,
            })
            .collect()
    }

    fn frames<T>(&mut self, mut each: impl FnMut(Frame<'_>) -> T) -> Vec<T> {
        let mut out = std::mem::take(self.state.output());
        let mut frames = Vec::new();
        while let Some(frame) = split(&out, |_| Ok(1 << 20)).unwrap() {
            let size = frame.size();
            frames.push(each(frame));
            let _ = out.split_to(size);
        }
        frames
    }

    fn kinds(&mut self) -> Vec<Kind> {
        self.frames(|frame| Kind::from_wire(frame.header.kind).unwrap())
    }

    /// The publishes among the frames sent.
    fn sent(&mut self) -> Vec<Sent> {
        let sent = self.frames(|frame| {
            (frame.header.kind == Kind::Publish as u16).then(|| {
                let publish: message::Publish<'_> = decode(frame.body).unwrap();
                (frame.header.request, publish.nonce, String::from_utf8(publish.payload.to_vec()).unwrap())
            })
        });
        sent.into_iter().flatten().collect()
    }

    /// The request of the one frame of this kind among those sent.
    #[track_caller]
    fn only(&mut self, kind: Kind) -> u32 {
        let mut frames = self.frames(|frame| (Kind::from_wire(frame.header.kind).unwrap(), frame.header.request));
        frames.retain(|(of, _)| *of == kind);
        assert_eq!(frames.len(), 1, "frames of {kind:?}");
        frames[0].1
    }

    fn at(&mut self, ms: u64) {
        assert!(ms >= self.ms);
        // As the driver does: whatever is due on the way is done when it is.
        while let Some(due) = self.state.timeout().filter(|due| *due <= Duration::from_millis(ms)) {
            let due = u64::try_from(due.as_micros().div_ceil(1_000)).unwrap();
            self.ms = due.max(self.ms);
            self.state.handle_timeout(self.now());
            self.collect();
            if self.ms >= ms {
                break;
            }
        }
        self.ms = ms;
        self.state.handle_timeout(self.now());
    }

    fn hear(&mut self, request: u32, frame: Incoming<'_>) {
        self.state.handle_frame(self.now(), request, frame);
        self.collect();
    }

    fn connect(&mut self, resumed: bool) {
        self.connected();
        self.welcome(resumed, 30_000);
    }

    /// The oldest attempt is a connection.
    fn connected(&mut self) {
        self.collect();
        while self.dialed.is_empty() {
            let due = self.state.timeout().unwrap().as_micros().div_ceil(1_000);
            self.at(u64::try_from(due).unwrap());
            self.collect();
        }
        let attempt = self.dialed.remove(0);
        self.dialed.clear();
        self.state.handle_connected(self.now(), attempt);
        self.collect();
    }

    /// The oldest attempt fails.
    fn unreachable(&mut self) {
        self.collect();
        let attempt = self.dialed.remove(0);
        self.state.handle_unreachable(self.now(), attempt, std::io::ErrorKind::ConnectionRefused.into());
        self.collect();
    }

    fn welcome(&mut self, resumed: bool, grant_ms: u32) {
        let welcome = message::Welcome {
            version: 1,
            features: 0,
            server_time: 0,
            grant_ms,
            token: Token([1; 16]),
            resumed,
            device_tag: DeviceTag(5),
            limits: Limits {
                payload_bytes_max: 100,
                rooms_max: 10,
                unanswered_requests_max: 64,
                page_records_max: 200,
                page_bytes_max: 1 << 18,
                text_bytes_max: 1_000,
            },
            modules: List::default(),
            extensions: ext(),
        };
        self.hear(0, Incoming::Welcome(welcome));
    }

    /// Connects, takes the session up, and goes on in the room. Returns what was sent before the server had said so.
    fn take_up(&mut self) -> Vec<Kind> {
        let (_, position) = self.position();
        self.connect(true);
        let frames = self.frames(|frame| (Kind::from_wire(frame.header.kind).unwrap(), frame.header.request));
        let request = frames.iter().find(|(kind, _)| *kind == Kind::Resume).unwrap().1;
        self.hear(request, Incoming::Joined(joined(ROOM, position)));
        frames.into_iter().map(|(kind, _)| kind).collect()
    }

    /// The connection breaks, and the next attempt is dialed.
    fn lose(&mut self) {
        self.state.handle_lost(self.now(), "cut".into(), false);
        self.redial();
    }

    /// The connection is broken; the next attempt is dialed.
    fn redial(&mut self) {
        self.collect();
        assert!(self.state.output().is_empty(), "nothing of the old connection is sent on the next");
        let back = self.state.timeout().unwrap();
        self.at(u64::try_from(back.as_millis()).unwrap() + 1);
        assert!(matches!(self.effects().last(), Some(Effect::Dial(..))));
    }

    #[track_caller]
    fn answer_join(&mut self, epoch: Epoch, cursor: Seq, newest_nonce: Option<Nonce>) {
        let request = self.only(Kind::Join);
        self.hear(request, Incoming::Joined(message::Joined { epoch, newest_nonce, ..joined(ROOM, cursor) }));
    }

    fn send(&mut self, ticket: Ticket, text: &str) {
        self.state.handle_send(self.now(), 0, ticket, Outgoing::text(text));
        self.collect();
    }

    /// Sends of these tickets, whose texts are their numbers; returns what went out.
    fn send_all(&mut self, tickets: std::ops::RangeInclusive<u64>) -> Vec<Sent> {
        for ticket in tickets {
            self.send(ticket, &ticket.to_string());
        }
        self.sent()
    }

    fn ack(&mut self, (request, nonce, _): &Sent, seq: Seq) {
        let ack = message::Ack {
            room: ROOM,
            nonce: *nonce,
            seq,
            time: 0,
            durability: Durability::Synced,
            duplicate: false,
            extensions: ext(),
        };
        self.hear(*request, Incoming::Ack(ack));
    }

    fn refuse(&mut self, request: u32, code: Code, retry_after_ms: u32) {
        self.hear(request, Incoming::Error(message::Error { code, retry_after_ms, message: "no", extensions: ext() }));
    }

    fn deliver(&mut self, seq: Seq) {
        self.hear(0, Incoming::Deliver(record(seq)));
    }

    fn gap(&mut self, epoch: Epoch, from: Seq, to: Seq, why: GapReason) {
        self.hear(0, Incoming::Gap(message::Gap { room: ROOM, epoch, from, to, why, extensions: ext() }));
    }

    /// Answers the fetch that was sent: checks where it starts.
    #[track_caller]
    fn answer_fetch(&mut self, start: Seq, seqs: &[Seq], gaps: &[(Seq, Seq)]) {
        let frames = self.frames(|frame| {
            let fetch: message::Fetch<'_> = decode(frame.body).unwrap();
            (frame.header.request, fetch.start)
        });
        let [(request, Some(asked))] = frames[..] else { panic!("{} frames", frames.len()) };
        assert_eq!(asked, start);
        let mut records = BytesMut::new();
        seqs.iter().for_each(|seq| encode(0, &record(*seq), &mut records));
        let gaps = gaps.iter().map(|(from, to)| PageGap { from: *from, to: *to, why: GapReason::EXPIRED }).collect();
        let page = message::Page {
            room: ROOM,
            epoch: EPOCH,
            tail: 100,
            next: None,
            gaps: List(gaps),
            records: &records,
            extensions: ext(),
        };
        self.hear(request, Incoming::Page(page));
    }

    fn ask(&mut self, ticket: Ticket, room: Option<RoomKey>, question: Question) {
        self.state.handle_ask(self.now(), Ask { ticket, room, question });
        self.collect();
    }

    /// What was asked and is answered now.
    fn answers(&mut self) -> Vec<(Ticket, Result<Answer, RequestError>)> {
        let effects = self.effects().into_iter();
        effects
            .filter_map(|effect| match effect {
                Effect::Answered(ticket, answer) => Some((ticket, Ok(answer))),
                Effect::Refused(ticket, error) => Some((ticket, Err(error))),
                _ => None,
            })
            .collect()
    }

    fn position(&self) -> (Epoch, Seq) {
        self.state.position(0).unwrap()
    }
}

fn page(start: Option<Seq>, direction: message::Direction, limit: u32) -> Question {
    Question::Page { start, direction, limit }
}

fn joined<'a>(room: RoomNumber, cursor: Seq) -> message::Joined<'a> {
    message::Joined {
        room,
        epoch: EPOCH,
        tail: cursor,
        first: 1,
        cursor,
        count: 0,
        read: 0,
        unread: 0,
        durability: Durability::Synced,
        newest_nonce: None,
        extensions: ext(),
    }
}

fn record<'a>(seq: Seq) -> message::Deliver<'a> {
    message::Deliver {
        room: ROOM,
        seq,
        time: 0,
        sender: "bob",
        device_tag: DeviceTag(6),
        nonce: seq,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        expires: 0,
        count: seq,
        content_type: ContentType::TEXT,
        payload: b"x",
        extensions: ext(),
    }
}

fn own_record<'a>(seq: Seq, nonce: Nonce) -> message::Deliver<'a> {
    message::Deliver { sender: "ann", device_tag: DeviceTag(5), nonce, ..record(seq) }
}

fn texts(sent: &[Sent]) -> Vec<&str> {
    sent.iter().map(|(_, _, text)| text.as_str()).collect()
}

fn nonces(sent: &[Sent]) -> Vec<Nonce> {
    sent.iter().map(|(_, nonce, _)| *nonce).collect()
}

/// Dials again if it must, and answers the join, which must be from the position.
fn rejoined(mut lab: Lab) -> Lab {
    let froms = {
        let out = lab.state.output().clone();
        let mut rest = &out[..];
        let mut froms = Vec::new();
        while let Some(frame) = split(rest, |_| Ok(1 << 20)).unwrap() {
            if frame.header.kind == Kind::Join as u16 {
                froms.push(decode::<message::Join<'_>>(frame.body).unwrap().from);
            }
            rest = &rest[frame.size()..];
        }
        froms
    };
    assert_eq!(froms, [JoinFrom::Position(EPOCH, 1)]);
    lab.answer_join(EPOCH, 1, None);
    lab
}
