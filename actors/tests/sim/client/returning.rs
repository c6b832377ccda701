//! How a client comes back: it says hello with its session's token, and tells where it stands in its rooms.

use bytes::Bytes;
use parlor_actors::message::Conn;
use parlor_protocol::{
    Code, Extensions, Header, Kind, List, RoomNumber, Seq, Token,
    frame::HEADER_BYTES,
    message::{Attached, Close, Detached, Follow, JoinFrom, Joined, Position, Resume, Welcome},
};

use super::{Ask, Client, Standing, View, decode};
use crate::{
    club::CLUB,
    house::{Hello, House},
};

/// What a client knows of its session.
#[derive(Default)]
pub struct Session {
    token: Option<Token>,
    attempt: u64,
    welcomed: bool,
    /// Its rooms wait for its positions.
    owes_positions: bool,
    /// A session that its server has ended for good.
    over: Option<Token>,
    /// Rooms that are to be attached again, by the request.
    resuming: Vec<Resuming>,
    /// Its connections from that of the newest welcome on.
    conns: Vec<Conn>,
    /// Connections that were given up and still stand, with what was read of the next frame.
    abandoned: Vec<(Conn, Vec<u8>)>,
    /// A connection was given up before its welcome, and may reach the server behind a later one.
    overlaps: bool,
}

#[derive(Clone, Copy)]
struct Resuming {
    request: u32,
    room: RoomNumber,
    at: usize,
    from: JoinFrom,
    /// The session had the room, for all that its client knows.
    sure: bool,
    /// The server attached it by itself before it read the positions.
    overtaken: bool,
}

impl Session {
    pub fn is_welcome(&self) -> bool {
        self.welcomed
    }

    pub fn is_busy(&self) -> bool {
        !self.resuming.is_empty() || self.owes_positions
    }

    pub fn owes_positions(&self) -> bool {
        self.owes_positions
    }

    /// The connection is gone.
    pub fn lose(&mut self, stood: bool) {
        self.overlaps |= stood && !self.welcomed;
        self.welcomed = false;
        self.owes_positions = false;
        self.resuming.clear();
    }

    /// The process that knew the session is gone.
    pub fn forget(&mut self) {
        self.abandoned.clear();
        self.conns.clear();
        self.overlaps = false;
    }

    /// Its server says that it is over.
    pub fn is_over(&mut self) {
        self.over = self.token;
    }

    /// Whether it may be told Replaced: by a connection of its own client that was given up. Where both carry one token the
    /// attempt's number tells which is newer; see `presence.rs`.
    pub fn overlaps(&self) -> bool {
        self.overlaps
    }
}

impl Client {
    /// Connects, mostly to take up its session. A connection that stands is given up, and not closed.
    pub fn connect(&mut self, house: &mut House) {
        if let Some(conn) = self.conn {
            house.count("connects while connected");
            let partial = std::mem::take(&mut self.partial);
            self.session.abandoned.push((conn, partial));
        }
        self.lose();
        let arbiter = u16::try_from(house.chance.below(usize::from(crate::house::ARBITERS))).unwrap();
        let forgets = !self.returns_to_all && house.chance.one_in(12);
        let resume = self.session.token.filter(|_| !forgets);
        self.session.attempt += 1;
        self.request += 1;
        let hello = Hello { request: self.request, resume, attempt: self.session.attempt };
        let conn = house.connect(arbiter, self.key.clone(), hello);
        house.log(|| {
            format!(
                "{} connects: {conn:?} with {hello:?} for {:?}",
                self.name(),
                self.session.token.map(|token| token.0[0])
            )
        });
        self.waiting.insert(self.request, Ask::Hello(resume));
        self.session.conns.push(conn);
        self.conn = Some(conn);
    }

    pub(super) fn on_welcome(&mut self, house: &mut House, welcome: &Welcome<'_>, asked: Option<Token>) {
        let session = &mut self.session;
        assert_eq!(welcome.device_tag, self.key.tag);
        let failed = session.conns.iter().any(|conn| house.failed.contains(conn));
        session.conns.retain(|conn| Some(*conn) == self.conn);
        if welcome.resumed && failed {
            house.count("taken up after it failed");
            self.views.iter_mut().for_each(|view| view.sure = false);
        }
        if welcome.resumed {
            assert!(asked == Some(welcome.token), "a session keeps its token");
            assert!(session.over != asked, "a session that was ended for good goes on");
            house.count("session taken up");
        } else {
            assert!(asked != Some(welcome.token), "a new session has a new token");
            if asked.is_some() {
                house.count("session is unknown");
            }
            self.views.iter_mut().for_each(|view| view.sure = false);
        }
        (session.token, session.welcomed, session.owes_positions) = (Some(welcome.token), true, welcome.resumed);
        // Otherwise later, or never if the socket breaks before.
        if welcome.resumed && !house.chance.one_in(4) {
            self.resume(house);
        }
        if self.follows {
            self.follow(house);
        }
    }

    /// Tells where it stands in the rooms that it goes on with, if it owes that. What it does not name is left.
    pub fn resume(&mut self, house: &mut House) {
        if !std::mem::take(&mut self.session.owes_positions) || !self.is_open() {
            return;
        }
        let mut positions = Vec::new();
        let request = self.request + 1;
        for (at, view) in self.views.iter_mut().enumerate() {
            let sure = std::mem::take(&mut view.sure);
            if view.standing != Standing::Out || !view.known || !self.returns_to_all && house.chance.one_in(6) {
                continue;
            }
            let (room, from) = (view.number, JoinFrom::Position(view.epoch, view.position));
            positions.push(Position { room, epoch: view.epoch, seq: view.position });
            self.session.resuming.push(Resuming { request, room, at, from, sure, overtaken: false });
            view.standing = Standing::Joining;
        }
        house.count("positions told");
        house.log(|| format!("{} resumes {positions:?}", self.name()));
        let resume = Resume { positions: List(positions), extensions: Extensions::default() };
        self.send(house, None, &resume);
    }

    /// Wants to be attached to all its user's rooms.
    pub fn follow(&mut self, house: &mut House) {
        let under_way = self.waiting.values().any(|ask| matches!(ask, Ask::Follow(_)));
        let view = &self.views[self.club()];
        if under_way || !self.is_open() {
            return;
        }
        let newest = house.chance.pick(&[0, 2]);
        let position = Position { room: view.number, epoch: view.epoch, seq: view.position };
        let (from, positions) = match (view.known, newest) {
            (true, _) => (JoinFrom::Position(position.epoch, position.seq), vec![position]),
            (false, 0) => (JoinFrom::Tail, Vec::new()),
            (false, newest) => (JoinFrom::Newest(newest), Vec::new()),
        };
        // What it follows is no longer left behind.
        let club = self.club();
        self.views[club].sure &= self.views[club].standing == Standing::In;
        house.count("follows");
        let follow = Follow { positions: List(positions), newest, extensions: Extensions::default() };
        self.send(house, Some(Ask::Follow(from)), &follow);
    }

    pub fn club(&self) -> usize {
        self.views.iter().position(|view| *view.name == *CLUB).unwrap()
    }

    /// What answers a part of a resumption; false if the frame does not.
    pub(super) fn on_resumed(&mut self, house: &mut House, kind: Kind, header: Header, body: &[u8]) -> bool {
        let room = match kind {
            Kind::Joined => decode::<Joined<'_>>(body).room,
            Kind::Detached => decode::<Detached<'_>>(body).room,
            _ => return false,
        };
        let resuming = &mut self.session.resuming;
        let is = |resuming: &Resuming| (resuming.request, resuming.room) == (header.request, room);
        let Some(at) = resuming.iter().position(is) else { return false };
        let Resuming { at, from, sure, overtaken, .. } = resuming.swap_remove(at);
        if kind == Kind::Joined {
            assert!(!overtaken, "{} is attached twice", self.name());
            house.count("room resumed");
            if at == self.club() && house.club.is_stranger(&self.key.user) {
                house.count("room resumed by a stranger");
            }
            self.views[at].on_joined(&decode(body), from);
            self.is_let_in(at, header.request);
            return true;
        }
        let detached: Detached<'_> = decode(body);
        let view = &mut self.views[at];
        if overtaken {
            // It may have been put out again since, and told so.
            let is_out = detached.code == Code::NotJoined && view.standing != Standing::In;
            assert!(is_out || detached.code == Code::AlreadyJoined, "{detached:?}");
            house.count("attached before it was resumed");
            return true;
        }
        assert_eq!((view.standing, detached.cursor), (Standing::Joining, view.position));
        view.standing = Standing::Out;
        // Of a room that the session does not have, the server does not take a position.
        view.told = detached.code != Code::NotJoined;
        let may_be_out = *view.name == *CLUB && house.club.may_be_refused(&self.key.user);
        house.count(match detached.code {
            Code::Forbidden if may_be_out => "not resumed: put out",
            Code::NotJoined if may_be_out || !sure => "not resumed: not joined",
            Code::AlreadyJoined if self.follows && *view.name == *CLUB => "not resumed: about to be attached",
            Code::RoomUnavailable | Code::Busy | Code::StoreUnavailable => "not resumed: for now",
            code => panic!("{}: {} is not resumed for {code}, and is sure: {sure}", self.name(), detached.room),
        });
        true
    }

    /// The server attaches a client that follows.
    pub(super) fn on_attached(&mut self, house: &mut House, request: u32, attached: &Attached<'_>) {
        let club = self.club();
        assert!(self.follows && *self.views[club].name == *attached.name, "{attached:?} is none of its rooms");
        let asked = match self.waiting.get(&request) {
            Some(Ask::Follow(from)) => Some(*from),
            _ if request == 0 => None,
            ask => panic!("{attached:?} is no answer to {ask:?}"),
        };
        let &Attached { room, epoch, tail, first, cursor, count, read, unread, durability, newest_nonce, .. } =
            attached;
        let extensions = Extensions::default();
        let joined =
            Joined { room, epoch, tail, first, cursor, count, read, unread, durability, newest_nonce, extensions };
        let view = &mut self.views[club];
        let mut resuming = self.session.resuming.iter_mut().filter(|resuming| resuming.at == club);
        match resuming.find(|resuming| !resuming.overtaken) {
            Some(resuming) if view.standing == Standing::Joining => resuming.overtaken = true,
            _ => assert_eq!(view.standing, Standing::Out, "it is attached once"),
        }
        view.standing = Standing::Joining;
        match asked {
            Some(from) => {
                house.count("attached as it follows");
                view.on_joined(&joined, from);
            }
            None => {
                let starts = house.club.starts(&self.key.user);
                let what = view.on_added(&joined, starts);
                house.count(what);
            }
        }
        self.is_let_in(club, request);
    }

    /// Reads connections that were given up. False if nothing was there.
    pub fn read_abandoned(&mut self, house: &mut House) -> bool {
        let (mut moved, mut closes) = (false, Vec::new());
        self.session.abandoned.retain_mut(|(conn, partial)| {
            let Some(line) = house.line(*conn) else {
                moved = true;
                return false;
            };
            moved |= !line.down.is_empty();
            partial.append(&mut line.down);
            while let Some((header, frame)) = take_frame(partial) {
                if header.kind == Kind::Close as u16 {
                    closes.push(decode::<Close<'_>>(&frame[HEADER_BYTES..]).code);
                    line.hung_up = true;
                    line.up.clear();
                }
            }
            true
        });
        for code in closes {
            house.count(match code {
                Code::Superseded => "told superseded",
                Code::Replaced => "told replaced",
                Code::SlowReader | Code::LeaseExpired | Code::Goodbye | Code::Kicked => "given up and closed",
                code => panic!("a connection that was given up is closed: {code}"),
            });
        }
        moved
    }

    /// The process that it is connected to is gone.
    pub fn lose_engine(&mut self) {
        self.lose();
        self.session.forget();
    }

    /// Closes all its connections.
    pub fn hang_up_all(&mut self, house: &mut House) {
        self.give_up_abandoned(house);
        self.hang_up(house);
    }

    /// Closes the connections that were given up.
    pub fn give_up_abandoned(&mut self, house: &mut House) {
        for (conn, _) in std::mem::take(&mut self.session.abandoned) {
            if let Some(line) = house.line(conn) {
                line.hung_up = true;
                line.up.clear();
                line.down.clear();
            }
        }
    }
}

/// A whole frame from the beginning of what was read.
pub(super) fn take_frame(read: &mut Vec<u8>) -> Option<(Header, Bytes)> {
    let header = Header::from_bytes(read.first_chunk()?);
    let size = HEADER_BYTES + header.len as usize;
    (read.len() >= size).then(|| (header, read.drain(..size).collect()))
}

impl View {
    /// The server attached it as its user was added to the room: with what came since.
    fn on_added(&mut self, joined: &Joined<'_>, mut starts: Vec<Seq>) -> &'static str {
        let goes_on = self.known && self.epoch == joined.epoch;
        // What came between his being removed and being added again may be his on both counts. A server that does not know
        // where he stands, which he tells anew over each connection, begins with all of it.
        let repeats = goes_on && joined.cursor < self.position;
        assert!(!repeats || !self.told, "{joined:?} repeats what was held up to {}", self.position);
        if goes_on && self.told {
            starts.push(self.position + 1);
        }
        // It begins with the first record that is his. If that cannot be read any more, a gap from it on follows.
        let begins = joined.cursor + 1;
        let earlier: Vec<Seq> = starts.iter().copied().filter(|start| *start < begins).collect();
        let exact = starts.contains(&begins);
        assert!(exact || !earlier.is_empty(), "{joined:?} begins before he was added, at {starts:?}");
        (self.gap_from, self.owes_gap, self.was_added) = (earlier, !exact, true);
        let from = JoinFrom::Position(joined.epoch, joined.cursor);
        self.known = false;
        self.on_joined(joined, from);
        if repeats { "attached below what is held" } else { "attached as it was added" }
    }
}
