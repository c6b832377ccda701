//! Speakers who say what they are given, and members who must hear exactly that.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::{
    client::Client,
    peers::{Event, Session},
    scenario::{fanout::Load, flight::Flight, traffic::nanos},
};

/// How long nothing may come to anybody.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// A conversation in all rooms.
pub(super) struct Talk<S> {
    /// Its messages.
    pub(super) flight: Flight,
    client: Client<S>,
    /// What each speaker says.
    lines: Vec<Vec<Box<[u8]>>>,
    /// How many messages each speaker has still to say.
    left: Vec<u64>,
    /// When the messages in flight were said: `window` slots per speaker.
    stamps: Vec<u64>,
    load: Load,
}

impl<S: Session> Talk<S> {
    /// Nothing is said yet. Speaker `s` of room `r` says `lines[r * speakers + s]`, that many times over.
    pub(super) fn new(load: &Load, client: Client<S>, lines: Vec<Vec<Box<[u8]>>>, times: u64) -> Self {
        Self {
            flight: Flight::new(load),
            client,
            left: lines.iter().map(|lines| times * lines.len() as u64).collect(),
            stamps: vec![0; lines.len() * load.window],
            lines,
            load: *load,
        }
    }

    /// Says all there is, and waits until everybody has heard it.
    pub(super) fn through(&mut self) -> io::Result<()> {
        let total: u64 = self.left.iter().sum();
        let start = Instant::now();
        let mut progress = (0, start);
        while self.flight.completed < total {
            self.say(nanos(start))?;
            self.hear(start)?;
            if progress.0 != self.flight.deliveries {
                progress = (self.flight.deliveries, Instant::now());
            } else if progress.1.elapsed() > STALL_LIMIT {
                let heard = self.flight.completed;
                return Err(io::Error::other(format!("only {heard} of {total} messages came to all")));
            }
        }
        Ok(())
    }

    fn say(&mut self, now: u64) -> io::Result<()> {
        for speaker in self.flight.take_ready() {
            let lines = &self.lines[speaker];
            let count = self.left[speaker].min(self.flight.free(speaker) as u64);
            self.left[speaker] -= count;
            for _ in 0..count {
                let (conn, number) = self.flight.next(speaker);
                self.stamps[slot(&self.load, speaker, number)] = now;
                let conn = &mut self.client.conns[conn];
                conn.publish(&lines[number as usize % lines.len()]);
                conn.flush()?;
            }
        }
        Ok(())
    }

    fn hear(&mut self, start: Instant) -> io::Result<()> {
        let Self { flight, client, lines, stamps, load, .. } = self;
        client.turn(Duration::from_millis(20), |conn, event| {
            let Event::Delivery { payload, sender } = event else { return Ok(()) };
            let speaker = match sender {
                Some(sender) => speaker(load, sender as usize),
                None => signature(payload).filter(|speaker| *speaker < lines.len()),
            };
            let speaker = speaker.ok_or_else(|| io::Error::other(format!("{sender:?} does not speak")))?;
            let (number, lines) = (flight.expected(conn, speaker), &lines[speaker]);
            let line = lines.get(number as usize % lines.len().max(1));
            if line.is_none_or(|line| **line != *payload) {
                let said = String::from_utf8_lossy(payload);
                return Err(io::Error::other(format!("{said:?} is not message {number} of speaker {speaker}")));
            }
            let latency = nanos(start).saturating_sub(stamps[slot(load, speaker, number)]);
            flight.latency.saturating_record(latency);
            flight.received(conn, speaker, number, sender)
        })
    }
}

/// Letters of a [`signature`].
const SIGNATURE: usize = 8;

/// What the speakers say. Where the protocol does not tell who speaks, every message begins with the speaker's number, as
/// an application would have to have it.
pub(super) fn said(lines: Vec<Vec<Box<str>>>, told: bool) -> Vec<Vec<Box<[u8]>>> {
    let signed = |speaker: usize, line: &str| match told {
        true => line.as_bytes().into(),
        false => format!("{speaker:0SIGNATURE$}{line}").into_bytes().into(),
    };
    let speakers = lines.iter().enumerate();
    speakers.map(|(speaker, lines)| lines.iter().map(|line| signed(speaker, line)).collect()).collect()
}

/// The speaker that a message names.
fn signature(payload: &[u8]) -> Option<usize> {
    std::str::from_utf8(payload.get(..SIGNATURE)?).ok()?.parse().ok()
}

/// The speaker who has this connection.
fn speaker(load: &Load, conn: usize) -> Option<usize> {
    let (room, place) = (conn / load.members, conn % load.members);
    (place < load.pubs && room < load.rooms).then_some(room * load.pubs + place)
}

fn slot(load: &Load, speaker: usize, number: u64) -> usize {
    speaker * load.window + number as usize % load.window
}
