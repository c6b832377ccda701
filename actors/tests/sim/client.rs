//! Clients by the letter of the protocol, that hold the server to it: each frame is checked against what the client
//! holds and against what the store has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use parlor_actors::{message::Conn, port::DeviceKey};
use parlor_protocol::{
    DeviceTag, Epoch, Extensions, List, Name, Nonce, RoomNumber, Seq, Token,
    message::{Direction, Fetch, Goodbye, Heartbeat, Join, JoinFrom, Leave, Network, Position, RecordKind},
};

use crate::house::House;
use returning::Session;

mod hearing;
mod returning;
mod sending;
mod viewing;
mod watching;

/// Messages that a client puts on the way at once.
const ON_THE_WAY_MAX: usize = 3;

/// What clients agree on about `memory` rooms, of which the store knows nothing.
pub type Memory = BTreeMap<(RoomNumber, Epoch, Seq), Bytes>;

pub struct Client {
    pub key: DeviceKey,
    pub conn: Option<Conn>,
    /// What was read and is not a whole frame yet.
    partial: Vec<u8>,
    request: u32,
    waiting: BTreeMap<u32, Ask>,
    pub views: Vec<View>,
    /// Whether it sends again at once when something is refused, or waits for the answers to the rest.
    hasty: bool,
    closing: bool,
    session: Session,
    /// It is to be attached to all its user's rooms, and joins none of those.
    pub follows: bool,
    /// It goes on with all its rooms when it comes back.
    pub returns_to_all: bool,
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    /// To begin, with this session's token.
    Hello(Option<Token>),
    /// To be attached to its user's rooms, and to the club from here.
    Follow(JoinFrom),
    Join(usize, JoinFrom),
    Leave(usize),
    Publish(usize, Nonce),
    Fetch(usize, Option<Seq>, Direction),
    /// To be told who is in a room, or no more.
    Watch(usize, bool),
    Beat,
    /// To take a part of a message, which publishes it if the others are there from an earlier connection.
    Part(usize, Nonce),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Out,
    Joining,
    In,
    Leaving,
}

/// A room as a client sees it.
pub struct View {
    pub name: Name,
    pub number: RoomNumber,
    pub standing: Standing,
    pub epoch: Epoch,
    pub position: Seq,
    /// Whether a position is known to come back with.
    known: bool,
    /// Whether its session has it.
    sure: bool,
    /// By which request it was let in, and over which connection.
    place: Option<(Conn, u32)>,
    /// A `Gap` that has to follow a `Joined`, and the cursor where it ends.
    owed: Option<(JoinFrom, Epoch, Seq)>,
    /// Where a `Gap` right behind an `Attached` that nobody asked for may begin, and whether there has to be one.
    gap_from: Vec<Seq>,
    owes_gap: bool,
    was_added: bool,
    /// The server knows where it stands, over this very connection, and has put it out.
    told: bool,
    pub held: BTreeMap<Seq, Bytes>,
    pub outbox: VecDeque<Message>,
    newest_nonce: Nonce,
    /// The newest nonce on the way.
    sent: Nonce,
    /// Something was refused for now: nothing is sent until nothing is on the way.
    stalled: bool,
    /// Who is there, as it was told, while it watches that.
    pub present: Option<BTreeSet<String>>,
    /// What was acknowledged, at which seq.
    pub acked: BTreeMap<Nonce, (Epoch, Seq)>,
}

pub struct Message {
    nonce: Nonce,
    silent: bool,
    /// What it changes: a kind, a seq, and whether a reaction is taken back.
    change: Option<(RecordKind, Seq, bool)>,
}

impl Client {
    pub fn new((user, device): (&str, &str), rooms: &[&str], hasty: bool, follows: bool) -> Self {
        let (user, device): (Name, Name) = (user.parse().unwrap(), device.parse().unwrap());
        let view = |name: &&str| View {
            name: name.parse().unwrap(),
            number: RoomNumber(0),
            standing: Standing::Out,
            epoch: Epoch(0),
            position: 0,
            known: false,
            sure: false,
            place: None,
            owed: None,
            gap_from: Vec::new(),
            owes_gap: false,
            was_added: false,
            told: false,
            held: BTreeMap::new(),
            outbox: VecDeque::new(),
            newest_nonce: 0,
            sent: 0,
            stalled: false,
            present: None,
            acked: BTreeMap::new(),
        };
        let key = DeviceKey { tag: DeviceTag::of(&user, &device), user };
        let views = rooms.iter().map(view).collect();
        Self {
            key,
            conn: None,
            partial: Vec::new(),
            request: 0,
            waiting: BTreeMap::new(),
            views,
            hasty,
            closing: false,
            session: Session::default(),
            follows,
            returns_to_all: false,
        }
    }

    pub fn name(&self) -> String {
        format!("{} {:?}", self.key.user, self.key.tag)
    }

    /// Whether it may ask something.
    pub fn is_open(&self) -> bool {
        self.conn.is_some() && self.session.is_welcome() && !self.closing
    }

    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.session.is_busy() || self.views.iter().any(|view| !view.outbox.is_empty())
    }

    /// Closes the socket; the server may notice late.
    pub fn hang_up(&mut self, house: &mut House) {
        house.log(|| format!("{} hangs up", self.name()));
        if let Some(conn) = self.conn {
            let keep = house.chance.below(4);
            if let Some(line) = house.line(conn) {
                line.hung_up = true;
                line.down.clear();
                line.up.truncate(keep);
            }
        }
        self.lose();
    }

    /// The connection is gone, and what was on its way is in doubt.
    pub fn lose(&mut self) {
        self.session.lose(self.conn.take().is_some());
        self.closing = false;
        self.partial.clear();
        self.waiting.clear();
        for view in &mut self.views {
            view.standing = Standing::Out;
            view.owed = None;
            (view.gap_from, view.owes_gap, view.was_added) = (Vec::new(), false, false);
            (view.told, view.stalled, view.sent, view.present) = (false, false, 0, None);
        }
    }

    /// It was let into a room.
    fn is_let_in(&mut self, at: usize, request: u32) {
        self.views[at].place = self.conn.map(|conn| (conn, request));
    }

    /// Whether it is in the club, for all that it knows, and its user was put out.
    pub fn stays_in(&self, house: &House) -> bool {
        let view = &self.views[self.club()];
        view.standing == Standing::In && view.place.is_some_and(|place| house.club.places.is_over(place))
    }

    fn send<'a, B: parlor_protocol::Body<'a>>(&mut self, house: &mut House, ask: Option<Ask>, body: &B) {
        self.request += 1;
        let request = self.request;
        let Some(line) = self.conn.and_then(|conn| house.line(conn)) else { return };
        line.up.push_back(parlor_protocol::to_bytes(request, body));
        if let Some(ask) = ask {
            self.waiting.insert(request, ask);
            house.log(|| format!("{} asks {request}: {ask:?}", self.name()));
        }
    }

    /// Joins a room it is not in: with its position, or if `anew` in any way.
    pub fn join(&mut self, house: &mut House, at: usize, anew: bool) {
        let chance = house.chance.any();
        if self.views[at].standing != Standing::Out || !self.is_open() {
            return;
        }
        if self.session.owes_positions() {
            return self.resume(house);
        }
        if self.follows && at == self.club() {
            return self.follow(house);
        }
        let view = &mut self.views[at];
        let from = match chance % 8 {
            _ if view.known && !anew => JoinFrom::Position(view.epoch, view.position),
            0 => JoinFrom::Tail,
            1 => JoinFrom::Newest(3),
            2 => JoinFrom::Newest(1_000),
            3 => JoinFrom::Seq(view.position / 2),
            4 => JoinFrom::Seq(u64::MAX),
            5 => JoinFrom::Position(Epoch(999), 7),
            _ => JoinFrom::Seq(1),
        };
        view.standing = Standing::Joining;
        let name = view.name.clone();
        let join = Join { room: &name, from, extensions: Extensions::default() };
        self.send(house, Some(Ask::Join(at, from)), &join);
    }

    pub fn leave(&mut self, house: &mut House, at: usize) {
        let view = &mut self.views[at];
        if view.standing == Standing::In && !self.closing {
            view.standing = Standing::Leaving;
            view.sure = false;
            house.count("leave");
            let leave = Leave { room: view.number, extensions: Extensions::default() };
            self.send(house, Some(Ask::Leave(at)), &leave);
        }
    }

    /// Puts a new message into the outbox.
    pub fn say(&mut self, house: &mut House, at: usize) {
        let nonce = self.views[at].newest_nonce + 1 + house.chance.any() % 3;
        if self.views[at].outbox.len() < 6 {
            self.views[at].newest_nonce = nonce;
            let silent = house.chance.one_in(4);
            let change = house.chance.one_in(5).then(|| {
                let kinds = [RecordKind::EDIT, RecordKind::RECALL, RecordKind::REACTION, RecordKind::REACTION];
                let kind = house.chance.pick(&kinds);
                let seq = (self.views[at].position + 2).saturating_sub(house.chance.any() % 12).max(1);
                (kind, seq, kind == RecordKind::REACTION && house.chance.one_in(3))
            });
            self.views[at].outbox.push_back(Message { nonce, silent, change });
        }
    }

    pub fn fetch(&mut self, house: &mut House, at: usize) {
        let view = &self.views[at];
        if view.standing != Standing::In || self.closing {
            return;
        }
        let near = view.position;
        let start = match house.chance.below(4) {
            0 => None,
            1 => Some(near / 2),
            2 => Some(near + 5),
            _ => Some(near),
        };
        let direction = house.chance.pick(&[Direction::Forward, Direction::Backward]);
        let limit = house.chance.pick(&[0, 1, 4, 1_000]);
        let fetch = Fetch { room: view.number, start, direction, limit, extensions: Extensions::default() };
        self.send(house, Some(Ask::Fetch(at, start, direction)), &fetch);
    }

    pub fn beat(&mut self, house: &mut House) {
        if !self.is_open() {
            return;
        }
        let mut positions = Vec::new();
        for view in self.views.iter().filter(|view| view.standing == Standing::In) {
            positions.push(Position { room: view.number, epoch: view.epoch, seq: view.position });
        }
        // Its lease gets longer and shorter as it says that its network is another one.
        let networks = [None, None, Some(Network::Wifi), Some(Network::Wired)];
        let network = house.chance.pick(&networks);
        let beat = Heartbeat { network, positions: List(positions), extensions: Extensions::default() };
        self.send(house, Some(Ask::Beat), &beat);
    }

    pub fn say_goodbye(&mut self, house: &mut House) {
        if !self.is_open() {
            return;
        }
        house.log(|| format!("{} says goodbye", self.name()));
        self.closing = true;
        self.send(house, None, &Goodbye { extensions: Extensions::default() });
    }
}

pub fn payload(user: &str, room: &str, nonce: Nonce) -> String {
    format!("{user} in {room}: {nonce:>width$}", width = 10 + usize::try_from(nonce * 7 % 90).unwrap())
}

/// What a record of this kind says.
pub fn said(kind: RecordKind, user: &str, room: &str, nonce: Nonce) -> String {
    match kind {
        RecordKind::RECALL => String::new(),
        RecordKind::REACTION => ["+", "-"][usize::from(nonce.is_multiple_of(2))].into(),
        _ => payload(user, room, nonce),
    }
}

fn decode<'a, B: parlor_protocol::Body<'a>>(body: &'a [u8]) -> B {
    parlor_protocol::decode(body).unwrap()
}
