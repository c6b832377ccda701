//! Clients by the letter of the protocol, that hold the server to it: each frame is checked against what the client
//! holds and against what the store has.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use parlor_actors::{message::Conn, port::DeviceKey, testkit::with_deliver};
use parlor_protocol::{
    Advice, Code, DeviceTag, Epoch, Extensions, Header, Kind, List, Name, Nonce, RoomNumber, Seq,
    frame::HEADER_BYTES,
    message::{
        Ack, Close, ContentType, Deliver, Direction, Durability, Error, Fetch, Gap, GapReason, Goodbye, Heartbeat,
        Join, JoinFrom, Joined, Leave, Left, PUBLISH_REMOVE, PUBLISH_SILENT, Page, Part, Publish, RecordKind,
    },
};

use crate::{
    Plant,
    house::{House, durability_of},
};

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
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    Join(usize, JoinFrom),
    Leave(usize),
    Publish(usize, Nonce),
    Fetch(usize, Option<Seq>, Direction),
    Beat,
    /// To take a part of a message.
    Part,
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
    /// A `Gap` that has to follow a `Joined`, and the cursor where it ends.
    owed: Option<(JoinFrom, Epoch, Seq)>,
    pub held: BTreeMap<Seq, Bytes>,
    pub outbox: VecDeque<Message>,
    newest_nonce: Nonce,
    /// The newest nonce on the way.
    sent: Nonce,
    /// Something was refused for now: nothing is sent until nothing is on the way.
    stalled: bool,
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
    pub fn new(user: &str, rooms: &[&str], hasty: bool) -> Self {
        let (user, device): (Name, Name) = (user.parse().unwrap(), "phone".parse().unwrap());
        let view = |name: &&str| View {
            name: name.parse().unwrap(),
            number: RoomNumber(0),
            standing: Standing::Out,
            epoch: Epoch(0),
            position: 0,
            known: false,
            owed: None,
            held: BTreeMap::new(),
            outbox: VecDeque::new(),
            newest_nonce: 0,
            sent: 0,
            stalled: false,
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
        }
    }

    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.views.iter().any(|view| !view.outbox.is_empty())
    }

    pub fn connect(&mut self, house: &mut House) {
        self.lose();
        let arbiter = u16::try_from(house.chance.below(usize::from(crate::house::ARBITERS))).unwrap();
        let conn = house.connect(arbiter, self.key.clone());
        house.log(|| format!("{} connects: {conn:?}", self.key.user));
        self.conn = Some(conn);
    }

    /// Closes the socket; the server may notice late.
    pub fn hang_up(&mut self, house: &mut House) {
        house.log(|| format!("{} hangs up", self.key.user));
        if let Some(conn) = self.conn.take() {
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
        self.conn = None;
        self.closing = false;
        self.partial.clear();
        self.waiting.clear();
        for view in &mut self.views {
            view.standing = Standing::Out;
            view.owed = None;
            view.stalled = false;
            view.sent = 0;
        }
    }

    fn send<'a, B: parlor_protocol::Body<'a>>(&mut self, house: &mut House, ask: Option<Ask>, body: &B) {
        self.request += 1;
        let request = self.request;
        let Some(line) = self.conn.and_then(|conn| house.line(conn)) else { return };
        line.up.push_back(parlor_protocol::to_bytes(request, body));
        if let Some(ask) = ask {
            self.waiting.insert(request, ask);
            house.log(|| format!("{} asks {request}: {ask:?}", self.key.user));
        }
    }

    /// Joins a room it is not in: with its position, or if `anew` in any way.
    pub fn join(&mut self, house: &mut House, at: usize, anew: bool) {
        let chance = house.chance.any();
        let view = &mut self.views[at];
        if view.standing != Standing::Out || self.conn.is_none() || self.closing {
            return;
        }
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

    /// Sends what the outbox holds and is not on the way; or again what is, as after a timeout.
    pub fn push(&mut self, house: &mut House, at: usize, again: bool) {
        let on_the_way = self.on_the_way(at);
        let view = &mut self.views[at];
        if view.standing != Standing::In || on_the_way >= ON_THE_WAY_MAX || self.closing {
            return;
        }
        if view.stalled {
            if on_the_way > 0 {
                return;
            }
            view.stalled = false;
        }
        let next = view.outbox.iter().find(|message| again || message.nonce > view.sent);
        let Some(Message { nonce, silent, change }) = next.filter(|message| !again || message.nonce <= view.sent)
        else {
            return;
        };
        let (nonce, silent, change, room) = (*nonce, *silent, *change, view.number);
        view.sent = view.sent.max(nonce);
        let (kind, refers_to, remove) = change.unwrap_or((RecordKind::MESSAGE, 0, false));
        let payload = said(kind, &self.key.user, &view.name, nonce);
        let publish = Publish {
            room,
            nonce,
            kind,
            refers_to,
            // The same each time that it is sent.
            lifetime_ms: (nonce % 4 > 0).then_some(100 + nonce % 9 * 200),
            flags: if silent { PUBLISH_SILENT } else { 0 } | if remove { PUBLISH_REMOVE } else { 0 },
            content_type: ContentType::TEXT,
            payload: payload.as_bytes(),
            extensions: Extensions::default(),
        };
        // Recalls and reactions are short.
        if matches!(kind, RecordKind::MESSAGE | RecordKind::EDIT) && house.chance.one_in(4) {
            return self.push_in_parts(house, at, &publish);
        }
        self.send(house, Some(Ask::Publish(at, nonce)), &publish);
    }

    /// Sends a message in two parts, in either order, one of them perhaps twice.
    fn push_in_parts(&mut self, house: &mut House, at: usize, publish: &Publish<'_>) {
        let cut = publish.payload.split_at(house.chance.pick(&[1, 9]));
        let parts = [(0, cut.0), (1, cut.1)];
        let (first, last) = if house.chance.one_in(2) { (parts[0], parts[1]) } else { (parts[1], parts[0]) };
        for (number, payload) in [first, first, last].into_iter().skip(house.chance.below(2)) {
            let part = Part {
                room: publish.room,
                nonce: publish.nonce,
                number,
                parts: 2,
                total_bytes: u32::try_from(publish.payload.len()).unwrap(),
                kind: publish.kind,
                refers_to: publish.refers_to,
                lifetime_ms: publish.lifetime_ms,
                flags: publish.flags,
                content_type: publish.content_type,
                payload,
                extensions: Extensions::default(),
            };
            let ask = if number == last.0 { Ask::Publish(at, publish.nonce) } else { Ask::Part };
            self.send(house, Some(ask), &part);
        }
    }

    fn on_the_way(&self, at: usize) -> usize {
        self.waiting.values().filter(|ask| matches!(ask, Ask::Publish(room, _) if *room == at)).count()
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
        if self.closing {
            return;
        }
        let beat = Heartbeat { network: None, positions: List::default(), extensions: Extensions::default() };
        self.send(house, Some(Ask::Beat), &beat);
    }

    pub fn say_goodbye(&mut self, house: &mut House) {
        house.log(|| format!("{} says goodbye", self.key.user));
        self.closing = self.conn.is_some();
        self.send(house, None, &Goodbye { extensions: Extensions::default() });
    }

    /// Reads up to `bytes` from the socket. False if nothing was there.
    pub fn read(&mut self, house: &mut House, memory: &mut Memory, bytes: usize) -> bool {
        let Some(conn) = self.conn else { return false };
        let Some(line) = house.line(conn) else {
            house.log(|| format!("{} finds its connection gone", self.key.user));
            self.lose();
            return true;
        };
        let bytes = bytes.min(line.down.len());
        self.partial.extend(line.down.drain(..bytes));
        let mut at = 0;
        while let Some(header) = self.partial.get(at..).and_then(<[u8]>::first_chunk) {
            let header = Header::from_bytes(header);
            let size = HEADER_BYTES + header.len as usize;
            let Some(frame) = self.partial.get(at..at + size) else { break };
            let frame = Bytes::copy_from_slice(frame);
            at += size;
            if house.plant == Some(Plant::DroppedGap) && header.kind == Kind::Gap as u16 {
                continue;
            }
            house.log(|| format!("{} reads {:?} {header:?}", self.key.user, Kind::from_wire(header.kind)));
            self.on_frame(house, memory, header, &frame);
            if self.conn.is_none() {
                return true;
            }
        }
        self.partial.drain(..at);
        bytes > 0
    }

    fn on_frame(&mut self, house: &mut House, memory: &mut Memory, header: Header, frame: &Bytes) {
        let body = &frame[HEADER_BYTES..];
        // A goodbye is not waited for: its close ends everything.
        let asked = header.request != 0 && header.kind != Kind::Close as u16;
        let ask = asked.then(|| {
            let ask = self.waiting.remove(&header.request);
            ask.unwrap_or_else(|| panic!("an answer to {}, which nobody asked", header.request))
        });
        let kind = Kind::from_wire(header.kind).unwrap();
        match (kind, ask) {
            (Kind::Joined, Some(Ask::Join(at, from))) => self.views[at].on_joined(&decode(body), from),
            (Kind::Left, Some(Ask::Leave(at))) => {
                let left: Left<'_> = decode(body);
                let view = &mut self.views[at];
                assert_eq!(left.cursor, view.position, "what was sent before the end of a membership has arrived");
                view.leave();
            }
            (Kind::Ack, Some(Ask::Publish(at, nonce))) => self.views[at].on_ack(&decode(body), nonce),
            (Kind::PartTaken, Some(Ask::Part)) => house.count("sent in parts"),
            (Kind::Page, Some(Ask::Fetch(at, start, direction))) => {
                self.views[at].on_page(house, memory, &decode(body), start, direction);
            }
            (Kind::HeartbeatAck, Some(Ask::Beat)) => {}
            (Kind::Error, Some(ask)) => self.on_error(house, &decode(body), ask),
            (Kind::Deliver, None) => {
                let room = with_deliver(frame, |deliver| deliver.room);
                let me = self.key.clone();
                self.view(room).on_deliver(house, memory, &me, frame);
            }
            (Kind::Gap, None) => {
                let gap: Gap<'_> = decode(body);
                self.view(gap.room).on_gap(house, &gap);
            }
            (Kind::Close, None) => {
                let close: Close<'_> = decode(body);
                house.log(|| format!("{} is closed: {}", self.key.user, close.code));
                house.count(match close.code {
                    Code::SlowReader => "closed: slow reader",
                    Code::LeaseExpired => "closed: lease",
                    Code::Replaced => "closed: replaced",
                    Code::Goodbye => "closed: goodbye",
                    code => panic!("closed: {code}"),
                });
                if close.code == Code::Goodbye {
                    assert!(self.closing && self.waiting.is_empty(), "goodbye answers all that came before it");
                }
                self.hang_up(house);
            }
            (kind, ask) => panic!("{kind:?} is no answer to {ask:?}"),
        }
    }

    fn view(&mut self, room: RoomNumber) -> &mut View {
        let view = self.views.iter_mut().find(|view| view.number == room && view.is_in());
        view.unwrap_or_else(|| panic!("something of room {room}, which was not joined"))
    }

    fn forgets(&self, ask: Ask) -> bool {
        matches!(ask, Ask::Publish(at, _) if durability_of(&self.views[at].name) == Durability::Memory)
    }

    /// Whether it was a change, or is no longer wanted, as after an answer to another try of it.
    fn changes(&self, ask: Ask) -> bool {
        let Ask::Publish(at, nonce) = ask else { return false };
        let outbox = &self.views[at].outbox;
        outbox.iter().find(|message| message.nonce == nonce).is_none_or(|message| message.change.is_some())
    }

    fn on_error(&mut self, house: &mut House, error: &Error<'_>, ask: Ask) {
        house.log(|| format!("{} is refused: {} {} {ask:?}", self.key.user, error.code, error.message));
        let refused = match error.code {
            Code::Busy => "refused: busy",
            Code::RateLimited => "refused: rate limited",
            Code::HeldBack => "refused: held back",
            Code::OutcomeUnknown => "refused: outcome unknown",
            Code::RoomUnavailable => "refused: room unavailable",
            Code::StoreUnavailable => "refused: store unavailable",
            // A `memory` room that was rebuilt has forgotten what it took before what it takes now.
            Code::NonceTooOld if self.forgets(ask) => "refused: too old for a memory room",
            Code::NotJoined if matches!(ask, Ask::Publish(..) | Ask::Fetch(..) | Ask::Part) => "refused: not joined",
            // A change that was refused for good leaves its nonce unused, and a later one may have been stored since.
            Code::NonceTooOld if self.changes(ask) => "refused: a change too old",
            Code::TargetGone
            | Code::NotChangeable
            | Code::Forbidden
            | Code::TooLate
            | Code::NoEffect
            | Code::TooManyReactions
                if self.changes(ask) =>
            {
                "refused: a change"
            }
            code => panic!("{ask:?} is refused for {code}: {}", error.message),
        };
        house.count(refused);
        match ask {
            Ask::Join(at, _) => self.views[at].standing = Standing::Out,
            Ask::Publish(at, nonce) => {
                let view = &mut self.views[at];
                if error.code == Code::NonceTooOld
                    || error.code.advice() == Advice::DoNotRetry && error.code != Code::NotJoined
                {
                    view.outbox.retain(|message| message.nonce != nonce);
                    return;
                }
                assert!(error.code.advice() == Advice::RetryLater || !view.is_in(), "{}", error.code);
                if view.outbox.iter().any(|message| message.nonce == nonce) {
                    view.sent = view.sent.min(nonce - 1);
                    view.stalled = !self.hasty;
                }
            }
            Ask::Fetch(..) | Ask::Part => {}
            Ask::Leave(_) | Ask::Beat => panic!("{ask:?} is not refused"),
        }
    }
}

impl View {
    fn is_in(&self) -> bool {
        matches!(self.standing, Standing::In | Standing::Leaving)
    }

    fn leave(&mut self) {
        self.standing = Standing::Out;
        self.stalled = false;
        self.sent = 0;
    }

    fn on_joined(&mut self, joined: &Joined<'_>, from: JoinFrom) {
        assert_eq!(self.standing, Standing::Joining);
        assert_eq!(joined.durability, durability_of(&self.name));
        let Joined { cursor, tail, first, epoch, .. } = *joined;
        assert!(first - 1 <= cursor && cursor <= tail, "{joined:?}");
        let resumes = self.known && from == JoinFrom::Position(self.epoch, self.position);
        let exact = match from {
            JoinFrom::Position(of, seq) => of == epoch && seq == cursor,
            JoinFrom::Tail => cursor == tail,
            JoinFrom::Newest(n) => cursor == tail.saturating_sub(u64::from(n)).max(first - 1),
            JoinFrom::Seq(seq) => cursor == seq.saturating_sub(1),
        };
        self.owed = (!exact).then_some((from, epoch, cursor));
        if !resumes {
            self.held.clear();
            (self.position, self.epoch) = (cursor, epoch);
        }
        assert!(exact || !matches!(from, JoinFrom::Tail | JoinFrom::Newest(_)), "{joined:?} for {from:?}");
        (self.standing, self.number, self.known) = (Standing::In, joined.room, true);
    }

    fn on_gap(&mut self, house: &mut House, gap: &Gap<'_>) {
        let Gap { epoch, from, to, why, .. } = *gap;
        let first = house.store.extent(&self.name).map_or(1, |(first, _)| first);
        match (self.owed.take(), why) {
            (Some((asked, of, cursor)), _) => {
                assert_eq!((epoch, to), (of, cursor), "the gap behind a join ends at the cursor");
                match (asked, why) {
                    (JoinFrom::Position(held, position), GapReason::NEW_EPOCH) => {
                        assert!(held != epoch && from <= position + 1 && from <= to + 1, "{gap:?}");
                        self.disown(from);
                        house.count("gap: new epoch at a join");
                    }
                    (JoinFrom::Position(_, position), GapReason::TRIMMED) => {
                        assert_eq!(from, position + 1);
                        house.count("gap: trimmed at a join");
                    }
                    (JoinFrom::Position(_, position), GapReason::EXPIRED) => {
                        assert_eq!(from, position + 1);
                        house.count("gap: expired at a join");
                    }
                    (JoinFrom::Seq(seq), GapReason::TRIMMED | GapReason::EXPIRED) => assert_eq!(from, seq.max(1)),
                    (JoinFrom::Seq(seq), GapReason::ABOVE_TAIL) => assert!(seq > to + 1 && from == to + 1),
                    _ => panic!("{gap:?} behind a join from {asked:?}"),
                }
            }
            (None, GapReason::NEW_EPOCH) => {
                assert!(epoch != self.epoch && from <= self.position + 1 && from <= to + 1, "{gap:?}");
                self.disown(from);
                house.count("gap: new epoch while joined");
            }
            (None, GapReason::TRIMMED) => {
                assert_eq!((epoch, from), (self.epoch, self.position + 1), "{gap:?}");
                assert!(to >= from);
                house.count("gap: trimmed while joined");
            }
            (None, GapReason::EXPIRED) => {
                assert_eq!((epoch, from), (self.epoch, self.position + 1), "{gap:?}");
                assert!(to >= from);
                house.count("gap: expired while joined");
            }
            (None, _) => panic!("{gap:?} out of nothing"),
        }
        if why == GapReason::EXPIRED && durability_of(&self.name) != Durability::Memory {
            for seq in from..=to {
                let expires =
                    house.store.frame(gap.room, seq).map(|frame| with_deliver(&frame, |record| record.expires));
                // What somebody trimmed behind the channel's back counts as expired when a sweep passes it. So does a
                // change of that.
                let trimmed = house.store.trimmed(&self.name);
                let orphan = house.store.frame(gap.room, seq).is_some_and(|frame| {
                    with_deliver(&frame, |record| record.kind.is_change() && record.refers_to < trimmed)
                });
                let lives = expires.is_some_and(|expires| expires == 0) && seq >= trimmed && !orphan;
                assert!(!lives, "{gap:?}, but {seq} lives for ever");
            }
        }
        if why == GapReason::TRIMMED && durability_of(&self.name) != Durability::Memory {
            assert!(to < first, "{gap:?} tells of records that are there, from {first} on");
        }
        (self.epoch, self.position) = (epoch, to);
    }

    /// What is held from here on is no longer the room's.
    fn disown(&mut self, from: Seq) {
        self.held.split_off(&from);
        // Nor are changes from here on, also those of records before: they would be fetched anew.
        self.held.retain(|_, frame| with_deliver(frame, |deliver| deliver.changed().revision < from));
    }

    fn on_deliver(&mut self, house: &mut House, memory: &mut Memory, me: &DeviceKey, frame: &Bytes) {
        assert_eq!(self.owed, None, "a join's gap is told first");
        with_deliver(frame, |deliver| {
            assert_eq!(deliver.seq, self.position + 1, "{}: a hole or a repeat", self.name);
            check_stored(house, memory, &self.name, self.epoch, deliver.room, deliver.seq, frame);
            if *deliver.sender == *me.user
                && let Some((epoch, seq)) = self.acked.get(&deliver.nonce)
                && *epoch == self.epoch
            {
                assert_eq!(*seq, deliver.seq, "a message is delivered where its ack says");
            }
            self.position = deliver.seq;
            self.held.insert(deliver.seq, frame.clone());
        });
    }

    fn on_ack(&mut self, ack: &Ack<'_>, nonce: Nonce) {
        assert_eq!((ack.nonce, ack.room, ack.durability), (nonce, self.number, durability_of(&self.name)));
        // A `memory` room that was rebuilt has forgotten what it acknowledged, and takes a retry for new.
        if ack.durability != Durability::Memory
            && let Some((_, seq)) = self.acked.insert(nonce, (self.epoch, ack.seq))
        {
            assert_eq!(seq, ack.seq, "a retried send is one message");
        }
        self.outbox.retain(|message| message.nonce != nonce);
    }

    fn on_page(
        &mut self,
        house: &mut House,
        memory: &mut Memory,
        page: &Page<'_>,
        start: Option<Seq>,
        direction: Direction,
    ) {
        let mut covered: Vec<(Seq, Seq)> = page.gaps.0.iter().map(|gap| (gap.from, gap.to)).collect();
        let mut records = page.records;
        while let Some(header) = records.first_chunk() {
            let size = HEADER_BYTES + Header::from_bytes(header).len as usize;
            let (frame, rest) = records.split_at(size);
            let seq = with_deliver(frame, |deliver| deliver.seq);
            check_stored(house, memory, &self.name, page.epoch, page.room, seq, &Bytes::copy_from_slice(frame));
            covered.push((seq, seq));
            records = rest;
        }
        covered.sort_unstable();
        for pair in covered.windows(2) {
            assert_eq!(pair[0].1 + 1, pair[1].0, "a page has no holes");
        }
        assert!(covered.len() <= house.limits.page_records_max as usize + 1, "a page's limit");
        let (Some((low, _)), Some((_, high))) = (covered.first(), covered.last()) else {
            assert_eq!(page.next, None, "an empty page is the last");
            return;
        };
        assert!(*high <= page.tail, "a page ends at the tail");
        match direction {
            Direction::Forward => {
                assert!(start.is_none_or(|start| start.max(1) == *low), "{start:?} begins at {low}");
                assert_eq!(page.next, (*high < page.tail).then_some(high + 1));
            }
            Direction::Backward => {
                assert_eq!(*high, start.unwrap_or(page.tail).min(page.tail));
                assert!(page.next.is_none_or(|next| next == low - 1));
            }
        }
    }
}

/// What reaches a client is stored, as it is; of `memory` rooms, whoever gets a record gets the same.
fn check_stored(
    house: &House,
    memory: &mut Memory,
    name: &Name,
    epoch: Epoch,
    room: RoomNumber,
    seq: Seq,
    frame: &Bytes,
) {
    if durability_of(name) == Durability::Memory {
        let known = memory.entry((room, epoch, seq)).or_insert_with(|| frame.clone());
        let same = |a: &Deliver<'_>, b: &Deliver<'_>| {
            let revised = a.changed().revision != b.changed().revision;
            (a.seq, a.sender, a.nonce, a.kind, a.count) == (b.seq, b.sender, b.nonce, b.kind, b.count)
                && (revised || a == b)
        };
        let same = with_deliver(known, |known| with_deliver(frame, |deliver| same(known, deliver)));
        assert!(same, "{name}: two records under seq {seq}");
    } else {
        assert!(house.store.holds(room, seq, frame), "{name}: seq {seq} is not stored");
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
