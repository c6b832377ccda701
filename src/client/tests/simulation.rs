//! Seeded talks with a server of several rooms that refuses, jumps, forgets sessions, takes them up room by room, and loses
//! connections at any time. Whatever happens: every send is stored once and in order, every record arrives once and in order,
//! and nothing is asked of a room that is not attached.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::client::{backoff::Rng, event::Stats};

/// Sends to each room, and rooms.
const SENDS: u64 = 25;
const ROOMS: u64 = 3;
const CUT: usize = 1 << 20;

/// A room of the server.
#[derive(Default)]
struct Log {
    nonces: Vec<Nonce>,
    /// The send that was refused for now; later ones are held back until it comes again.
    refused: Option<Nonce>,
    /// Delivered up to here; `None` while the session is not attached.
    cursor: Option<Seq>,
}

/// What happened, so that a run in which nothing did is noticed.
#[derive(Clone, Copy, Default)]
struct Counts {
    /// Long texts that came whole, and those of which some parts had come over an older connection.
    uploads: u64,
    continued: u64,
    /// Sessions taken up; their rooms that went on, were refused for now, and were not had; those that the next loss left
    /// without an answer.
    resumes: u64,
    resumed: u64,
    put_off: u64,
    not_had: u64,
    cut_off: u64,
}

/// A server, as the contract describes it.
struct Server {
    rng: Rng,
    rooms: Vec<Log>,
    /// Rooms of a session that was taken up, before its `Resume`.
    left_behind: BTreeSet<usize>,
    /// Positions of a `Resume` that wait for their answers.
    resuming: Vec<(u32, message::Position)>,
    /// Whether a `Resume` has to come before anything else.
    expects_resume: bool,
    /// The parts of the long text that is under way, and whether some came over an older connection.
    parts: Option<(Nonce, BTreeSet<u32>)>,
    older: bool,
    said: VecDeque<(u32, bytes::Bytes)>,
    counts: Counts,
}

fn number(room: usize) -> RoomNumber {
    RoomNumber(ROOM.0 + room as u64)
}

fn index(number: RoomNumber) -> usize {
    (number.0 - ROOM.0) as usize
}

impl Server {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            rooms: (0..ROOMS).map(|_| Log::default()).collect(),
            left_behind: BTreeSet::new(),
            resuming: Vec::new(),
            expects_resume: false,
            parts: None,
            older: false,
            said: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.rng.up_to(Duration::from_micros(99)) < Duration::from_micros(percent)
    }

    fn say<'a>(&mut self, request: u32, body: &impl Body<'a>) {
        self.said.push_back((request, parlor_protocol::to_bytes(request, body)));
    }

    fn push(&mut self) {
        for room in 0..self.rooms.len() {
            let tail = self.rooms[room].nonces.len() as Seq;
            while let Some(cursor) = self.rooms[room].cursor.filter(|cursor| *cursor < tail) {
                let seq = cursor + 1;
                self.rooms[room].cursor = Some(seq);
                // Not what a good server does: the client must notice, at the next record at the latest.
                let times = match self.chance(5) {
                    true if seq < SENDS => 0,
                    _ => 1 + u64::from(self.chance(5)),
                };
                for _ in 0..times {
                    let nonce = self.rooms[room].nonces[cursor as usize];
                    self.say(0, &message::Deliver { room: number(room), ..own_record(seq, nonce) });
                }
            }
        }
    }

    /// The connection is lost, and the next one is there. Returns whether the session is taken up.
    fn lose(&mut self, resumes: bool) {
        // What either had said and the other not heard is lost.
        self.said.clear();
        self.counts.cut_off += self.resuming.len() as u64;
        let mut had: BTreeSet<_> = (0..self.rooms.len()).filter(|room| self.rooms[*room].cursor.is_some()).collect();
        for (_, position) in std::mem::take(&mut self.resuming) {
            if self.chance(50) {
                self.left_behind.remove(&index(position.room));
            }
        }
        had.append(&mut self.left_behind);
        self.expects_resume = false;
        self.rooms.iter_mut().for_each(|room| room.cursor = None);
        if resumes {
            (self.left_behind, self.expects_resume) = (had, true);
            self.older = self.parts.is_some();
            self.counts.resumes += 1;
        } else {
            (self.parts, self.older) = (None, false);
        }
    }

    fn joined(&mut self, request: u32, room: usize, position: Seq) {
        let log = &mut self.rooms[room];
        assert_eq!(log.cursor, None, "attached already");
        assert!(position <= log.nonces.len() as Seq, "a position above the tail");
        log.cursor = Some(position);
        let (tail, newest_nonce) = (log.nonces.len() as Seq, log.nonces.last().copied());
        let joined = message::Joined { tail, newest_nonce, ..super::joined(number(room), position) };
        self.say(request, &joined);
    }

    /// Answers one room of a `Resume`, whichever.
    fn resume_one(&mut self) {
        if self.resuming.is_empty() {
            return;
        }
        let at = self.rng.up_to(Duration::from_micros(self.resuming.len() as u64 - 1)).as_micros() as usize;
        let (request, position) = self.resuming.swap_remove(at);
        let room = index(position.room);
        let detached = |code| message::Detached {
            room: position.room,
            cursor: position.seq,
            code,
            message: "",
            extensions: ext(),
        };
        if !self.left_behind.remove(&room) {
            self.counts.not_had += 1;
            self.say(request, &detached(Code::NotJoined));
        } else if self.chance(20) {
            self.counts.put_off += 1;
            self.say(request, &detached(Code::RoomUnavailable));
        } else {
            self.counts.resumed += 1;
            self.joined(request, room, position.seq);
        }
    }

    fn hear(&mut self, frame: Frame<'_>) {
        let request = frame.header.request;
        let kind = Kind::from_wire(frame.header.kind).unwrap();
        assert!(!self.expects_resume || matches!(kind, Kind::Resume), "{kind:?} before the resume");
        match kind {
            Kind::Resume => {
                assert!(std::mem::take(&mut self.expects_resume), "nothing is to be resumed");
                let resume: message::Resume<'_> = decode(frame.body).unwrap();
                let listed: BTreeSet<_> = resume.positions.0.iter().map(|position| index(position.room)).collect();
                assert_eq!(listed.len(), resume.positions.0.len(), "a room twice");
                // One that the server has only just attached may not be known to the client: it is left.
                self.left_behind.retain(|room| listed.contains(room));
                self.resuming = resume.positions.0.iter().map(|position| (request, *position)).collect();
            }
            Kind::Join => {
                let join: message::Join<'_> = decode(frame.body).unwrap();
                let JoinFrom::Position(EPOCH, position) = join.from else { panic!("{:?}", join.from) };
                let room: usize = join.room.parse().unwrap();
                let listed = self.resuming.iter().any(|(_, position)| position.room == number(room));
                assert!(!listed, "the resume has not answered yet");
                self.joined(request, room, position);
            }
            Kind::Publish => {
                let publish: message::Publish<'_> = decode(frame.body).unwrap();
                self.publish(request, index(publish.room), publish.nonce);
            }
            Kind::Part => self.part(request, &decode(frame.body).unwrap()),
            Kind::Fetch => {
                let fetch: message::Fetch<'_> = decode(frame.body).unwrap();
                let log = &self.rooms[index(fetch.room)];
                assert!(log.cursor.is_some(), "a fetch from a room that is not attached");
                let start = fetch.start.unwrap();
                let mut records = BytesMut::new();
                for (seq, nonce) in (1..).zip(&log.nonces).skip(start as usize - 1).take(5) {
                    encode(0, &message::Deliver { room: fetch.room, ..own_record(seq, *nonce) }, &mut records);
                }
                let page = message::Page {
                    room: fetch.room,
                    epoch: EPOCH,
                    tail: log.nonces.len() as Seq,
                    next: None,
                    gaps: List::default(),
                    records: &records,
                    extensions: ext(),
                };
                self.say(request, &page);
            }
            Kind::Heartbeat => {
                let beat: message::Heartbeat<'_> = decode(frame.body).unwrap();
                for position in &beat.positions.0 {
                    assert!(self.rooms[index(position.room)].cursor.is_some(), "a position where it is not attached");
                }
                self.say(0, &message::HeartbeatAck { server_time: 0, grant_ms: 1_000, extensions: ext() });
            }
            Kind::Hello => {}
            other => panic!("{other:?}"),
        }
        self.push();
    }

    fn part(&mut self, request: u32, part: &message::Part<'_>) {
        let message::Part { room, nonce, number, parts, .. } = *part;
        if self.chance(3) {
            self.parts = None; // It was too slow, say.
        }
        if self.chance(3) {
            let busy = message::Error { code: Code::Busy, retry_after_ms: 30, message: "", extensions: ext() };
            return self.say(request, &busy);
        }
        if self.parts.as_ref().is_none_or(|(of, _)| *of != nonce) {
            (self.parts, self.older) = (Some((nonce, BTreeSet::new())), false);
        }
        let Some((_, have)) = &mut self.parts else { return };
        have.insert(number);
        let missing: Vec<_> = (0..parts).filter(|number| !have.contains(number)).collect();
        if missing.is_empty() {
            self.parts = None;
            self.counts.uploads += 1;
            self.counts.continued += u64::from(std::mem::take(&mut self.older));
            self.publish(request, index(room), nonce);
        } else {
            let taken = message::PartTaken { room, nonce, missing: List(missing), extensions: ext() };
            self.say(request, &taken);
        }
    }

    fn publish(&mut self, request: u32, room: usize, nonce: Nonce) {
        assert!(self.rooms[room].cursor.is_some(), "a publish to a room that is not attached");
        let refuse = |code| message::Error { code, retry_after_ms: 30, message: "", extensions: ext() };
        let known = self.rooms[room].nonces.iter().position(|known| *known == nonce);
        if known.is_none() && self.rooms[room].refused.is_some_and(|refused| refused < nonce) {
            return self.say(request, &refuse(Code::HeldBack));
        }
        if known.is_none() && self.chance(10) {
            self.rooms[room].refused = Some(nonce);
            return self.say(request, &refuse(Code::Busy));
        }
        if known.is_none() {
            let log = &mut self.rooms[room];
            assert!(log.nonces.last().is_none_or(|last| *last < nonce), "{nonce} comes too late");
            log.refused = None;
            log.nonces.push(nonce);
            if self.chance(50) {
                self.push(); // The delivery overtakes the ack.
            }
        }
        let seq = known.unwrap_or(self.rooms[room].nonces.len() - 1) as Seq + 1;
        let ack = message::Ack {
            room: number(room),
            nonce,
            seq,
            time: 0,
            durability: Durability::Synced,
            duplicate: known.is_some(),
            extensions: ext(),
        };
        self.say(request, &ack);
    }
}

/// What the application got of one room: tickets with the seqs of their acks, and the seqs of records.
#[derive(Default)]
struct Got {
    acked: Vec<(Ticket, Seq)>,
    received: Vec<Seq>,
}

fn run(seed: u64) -> (Stats, Counts) {
    let mut server = Server::new(seed);
    let mut lab = Lab::new();
    lab.connect(false);
    let mut got: BTreeMap<RoomKey, Got> = BTreeMap::new();
    for key in 0..ROOMS as RoomKey {
        let name = Name::parse(&key.to_string()).unwrap();
        lab.state.handle_join(lab.now(), key, 1_000 + u64::from(key), name, JoinFrom::Position(EPOCH, 0));
        got.insert(key, Got::default());
    }
    let mut next = 0;
    for step in 0.. {
        assert!(step < 20_000, "seed {seed}: it does not come to an end");
        for effect in lab.effects() {
            match effect {
                Effect::Sent(ticket, outcome) => {
                    let key = (ticket % ROOMS) as RoomKey;
                    got.get_mut(&key).unwrap().acked.push((ticket / ROOMS, outcome.unwrap().seq));
                }
                Effect::Event(key, Event::Message(message), position) => {
                    assert_eq!(position, (EPOCH, message.seq));
                    got.get_mut(&key).unwrap().received.push(message.seq);
                }
                Effect::Event(_, Event::Gap(gap), _) => panic!("seed {seed}: {gap:?}"),
                Effect::Event(_, Event::Closed { .. }, _)
                | Effect::Ended(..)
                | Effect::Failed(_)
                | Effect::Refused(..) => {
                    panic!("seed {seed}: {effect:?}")
                }
                _ => {}
            }
        }
        let done = |got: &Got| got.acked.len() as u64 == SENDS && got.received.len() as u64 == SENDS;
        if got.values().all(done) {
            break;
        }
        while next < SENDS * ROOMS && server.chance(30) {
            let bytes = if server.chance(25) { 350 } else { 1 };
            let text = Outgoing::text("x".repeat(bytes));
            lab.state.handle_send(lab.now(), (next % ROOMS) as RoomKey, next, text);
            lab.collect();
            next += 1;
        }
        // Not for ever: a client that is stuck must not be helped out by the next connection.
        if step < 300 && server.chance(3) {
            lab.lose();
            let resumes = server.chance(70);
            lab.connected();
            let presented = lab.frames(|frame| decode::<message::Hello<'_>>(frame.body).unwrap().resume);
            assert_ne!(presented, [None], "the session could go on");
            server.lose(resumes);
            lab.welcome(resumes, 1_000);
        }
        let out = lab.frames(|frame| {
            let mut bytes = frame.header.to_bytes().to_vec();
            bytes.extend(frame.body);
            bytes
        });
        for bytes in &out {
            server.hear(split(bytes, |_| Ok(CUT as u32)).unwrap().unwrap());
        }
        if server.chance(30) {
            server.resume_one();
            server.push();
        }
        for _ in 0..3 {
            let Some((request, bytes)) = server.said.pop_front() else { break };
            let frame = split(&bytes, |_| Ok(CUT as u32)).unwrap().unwrap();
            let incoming = crate::client::wire::read(&frame).unwrap().unwrap();
            lab.hear(request, incoming);
        }
        let kept = std::mem::take(&mut lab.effects);
        lab.at(lab.ms + 1);
        lab.effects.splice(0..0, kept);
    }
    for (room, mut got) in got {
        assert!(got.received.iter().copied().eq(1..=SENDS), "seed {seed}, room {room}: {:?}", got.received);
        got.acked.sort_unstable();
        assert!(got.acked.iter().copied().eq((0..SENDS).zip(1..)), "seed {seed}: sends are stored once and in order");
    }
    assert!(server.rooms.iter().all(|room| room.nonces.is_sorted()));
    (lab.state.stats(), server.counts)
}

#[test]
fn every_send_and_every_record_once_and_in_order() {
    let all: Vec<_> = (0..300).map(run).collect();
    // A simulation in which nothing goes wrong proves nothing.
    let check = |what: &str, count: fn(&Stats, &Counts) -> u64| {
        let sum = all.iter().map(|(stats, counts)| count(stats, counts)).sum::<u64>();
        println!("{what}: {sum}");
        assert!(sum > 100, "{what}: {sum} only");
    };
    check("long texts", |_, counts| counts.uploads);
    check("long texts begun on one connection and finished on another", |_, counts| counts.continued);
    check("duplicates", |stats, _| stats.duplicates);
    check("holes", |stats, _| stats.holes);
    check("refusals", |stats, _| stats.refusals);
    check("connections", |stats, _| stats.connections - 1);
    check("sessions taken up", |_, counts| counts.resumes);
    check("rooms that went on", |_, counts| counts.resumed);
    check("rooms refused for now", |_, counts| counts.put_off);
    check("rooms that the session did not have", |_, counts| counts.not_had);
    check("rooms whose answer was lost", |_, counts| counts.cut_off);
}
