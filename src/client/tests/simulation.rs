//! Seeded talks with a server that refuses, jumps, forgets sessions and loses connections. Whatever happens: every send
//! is stored once and in order, and every record arrives once and in order.

use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::client::{backoff::Rng, event::Stats};

const SENDS: u64 = 60;
const CUT: usize = 1 << 20;

/// A server of one room, as the contract describes it.
struct Server {
    rng: Rng,
    log: Vec<Nonce>,
    /// The send that was refused for now; later ones are held back until it comes again.
    refused: Option<Nonce>,
    cursor: Option<Seq>,
    /// The parts of the long text that is under way.
    parts: Option<(Nonce, BTreeSet<u32>)>,
    /// What the client reported with its last heartbeat.
    reported: Seq,
    said: VecDeque<(u32, bytes::Bytes)>,
    /// Long texts that came whole.
    uploads: u64,
}

impl Server {
    fn chance(&mut self, percent: u64) -> bool {
        self.rng.up_to(Duration::from_micros(99)) < Duration::from_micros(percent)
    }

    fn say<'a>(&mut self, request: u32, body: &impl Body<'a>) {
        self.said.push_back((request, parlor_protocol::to_bytes(request, body)));
    }

    fn push(&mut self) {
        let tail = self.log.len() as Seq;
        while let Some(cursor) = self.cursor.filter(|cursor| *cursor < tail) {
            let seq = cursor + 1;
            self.cursor = Some(seq);
            // Not what a good server does: the client must notice, at the next record at the latest.
            let skips = seq < SENDS && self.chance(5);
            if !skips {
                let record = own_record(seq, self.log[cursor as usize]);
                self.say(0, &record);
            }
        }
    }

    fn hear(&mut self, frame: Frame<'_>) {
        let request = frame.header.request;
        match Kind::from_wire(frame.header.kind) {
            Some(Kind::Join) => {
                let join: message::Join<'_> = decode(frame.body).unwrap();
                let JoinFrom::Position(EPOCH, position) = join.from else { panic!("{:?}", join.from) };
                let joined = message::Joined {
                    room: ROOM,
                    epoch: EPOCH,
                    tail: self.log.len() as Seq,
                    first: 1,
                    cursor: position,
                    count: 0,
                    read: 0,
                    unread: 0,
                    durability: Durability::Synced,
                    newest_nonce: self.log.last().copied(),
                    extensions: ext(),
                };
                self.say(request, &joined);
                (self.cursor, self.reported) = (Some(position), position);
            }
            Some(Kind::Publish) => self.publish(request, decode::<message::Publish<'_>>(frame.body).unwrap().nonce),
            Some(Kind::Part) => self.part(request, &decode(frame.body).unwrap()),
            Some(Kind::Fetch) => {
                let fetch: message::Fetch<'_> = decode(frame.body).unwrap();
                let start = fetch.start.unwrap();
                let mut records = BytesMut::new();
                for (seq, nonce) in (1..).zip(&self.log).skip(start as usize - 1).take(5) {
                    encode(0, &own_record(seq, *nonce), &mut records);
                }
                let page = message::Page {
                    room: ROOM,
                    epoch: EPOCH,
                    tail: self.log.len() as Seq,
                    next: None,
                    gaps: List::default(),
                    records: &records,
                    extensions: ext(),
                };
                self.say(request, &page);
            }
            Some(Kind::Heartbeat) => {
                let beat: message::Heartbeat<'_> = decode(frame.body).unwrap();
                self.reported = beat.positions.0.first().map_or(self.reported, |position| position.seq);
                self.say(0, &message::HeartbeatAck { server_time: 0, grant_ms: 1_000, extensions: ext() });
            }
            Some(Kind::Hello) => {}
            other => panic!("{other:?}"),
        }
        self.push();
    }

    fn part(&mut self, request: u32, part: &message::Part<'_>) {
        let message::Part { nonce, number, parts, .. } = *part;
        if self.chance(3) {
            self.parts = None; // It was too slow, say.
        }
        if self.chance(3) {
            let busy = message::Error { code: Code::Busy, retry_after_ms: 30, message: "", extensions: ext() };
            return self.say(request, &busy);
        }
        if self.parts.as_ref().is_none_or(|(of, _)| *of != nonce) {
            self.parts = Some((nonce, BTreeSet::new()));
        }
        let Some((_, have)) = &mut self.parts else { return };
        have.insert(number);
        let missing: Vec<_> = (0..parts).filter(|number| !have.contains(number)).collect();
        if missing.is_empty() {
            self.parts = None;
            self.uploads += 1;
            self.publish(request, nonce);
        } else {
            let taken = message::PartTaken { room: ROOM, nonce, missing: List(missing), extensions: ext() };
            self.say(request, &taken);
        }
    }

    fn publish(&mut self, request: u32, nonce: Nonce) {
        let refuse = |code| message::Error { code, retry_after_ms: 30, message: "", extensions: ext() };
        let known = self.log.iter().position(|known| *known == nonce);
        if known.is_none() && self.refused.is_some_and(|refused| refused < nonce) {
            return self.say(request, &refuse(Code::HeldBack));
        }
        if known.is_none() && self.chance(10) {
            self.refused = Some(nonce);
            return self.say(request, &refuse(Code::Busy));
        }
        if known.is_none() {
            assert!(self.log.last().is_none_or(|last| *last < nonce), "{nonce} comes too late");
            self.refused = None;
            self.log.push(nonce);
            if self.chance(50) {
                self.push(); // The delivery overtakes the ack.
            }
        }
        let seq = known.unwrap_or(self.log.len() - 1) as Seq + 1;
        let ack = message::Ack {
            room: ROOM,
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

fn run(seed: u64) -> (Stats, u64) {
    let mut server = Server {
        rng: Rng::new(seed),
        log: Vec::new(),
        refused: None,
        cursor: None,
        reported: 0,
        parts: None,
        uploads: 0,
        said: VecDeque::new(),
    };
    let mut lab = Lab::new();
    lab.connect(false);
    lab.state.handle_join(lab.now(), 0, 1_000, Name::parse("lobby").unwrap(), JoinFrom::Position(EPOCH, 0));
    let (mut next, mut acked, mut received) = (0, Vec::new(), Vec::new());
    for step in 0.. {
        assert!(step < 20_000, "seed {seed}: it does not come to an end");
        for effect in lab.effects() {
            match effect {
                Effect::Sent(ticket, outcome) => acked.push((ticket, outcome.unwrap().seq)),
                Effect::Event(_, Event::Message(message), position) => {
                    assert_eq!(position, (EPOCH, message.seq));
                    received.push(message.seq);
                }
                Effect::Event(_, Event::Gap(gap), _) => panic!("seed {seed}: {gap:?}"),
                Effect::Ended(..) | Effect::Failed(_) => panic!("seed {seed}: {effect:?}"),
                _ => {}
            }
        }
        if acked.len() as u64 == SENDS && received.len() as u64 == SENDS {
            break;
        }
        while next < SENDS && server.chance(30) {
            let bytes = if server.chance(25) { 350 } else { 1 };
            lab.send(next, &"x".repeat(bytes));
            next += 1;
        }
        // Not for ever: a client that is stuck must not be helped out by the next connection.
        if step < 300 && server.chance(2) {
            // What either had said and the other not heard is lost.
            server.said.clear();
            (server.cursor, server.parts) = (None, None);
            lab.lose();
            let resumed = server.chance(50);
            lab.state.handle_connected(lab.now());
            let presented = lab.frames(|frame| decode::<message::Hello<'_>>(frame.body).unwrap().resume);
            let resumed = resumed && presented != [None];
            if resumed {
                server.cursor = Some(server.reported);
            }
            lab.welcome(resumed, 1_000);
            if resumed {
                server.push();
            }
        }
        let out = lab.frames(|frame| {
            let mut bytes = frame.header.to_bytes().to_vec();
            bytes.extend(frame.body);
            bytes
        });
        for bytes in &out {
            server.hear(split(bytes, |_| Ok(CUT as u32)).unwrap().unwrap());
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
    assert!(received.iter().copied().eq(1..=SENDS), "seed {seed}: {received:?}");
    acked.sort_unstable();
    assert!(acked.iter().copied().eq((0..SENDS).zip(1..)), "seed {seed}: sends are stored once and in order");
    assert!(server.log.is_sorted());
    (lab.state.stats(), server.uploads)
}

#[test]
fn every_send_and_every_record_once_and_in_order() {
    let all: Vec<_> = (0..300).map(run).collect();
    // A simulation in which nothing goes wrong proves nothing.
    let check = |what: &str, count: fn(&Stats) -> u64| {
        assert!(all.iter().map(|(stats, _)| count(stats)).sum::<u64>() > 300, "few {what}");
    };
    assert!(all.iter().map(|(_, uploads)| uploads).sum::<u64>() > 3_000, "few long texts");
    check("duplicates", |stats| stats.duplicates);
    check("holes", |stats| stats.holes);
    check("refusals", |stats| stats.refusals);
    check("connections", |stats| stats.connections - 1);
}
