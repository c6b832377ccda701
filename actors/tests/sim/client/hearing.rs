//! What a client reads from its socket: whole frames, each an answer or news of a room.

use bytes::Bytes;
use parlor_actors::testkit::with_deliver;
use parlor_protocol::{
    Advice, Code, Header, Kind, RoomNumber,
    frame::HEADER_BYTES,
    message::{Close, Detached, Durability, Error, Gap, Left, RoomPresence},
};

use super::{Ask, Client, Memory, Standing, View, decode, returning::take_frame};
use crate::{
    club::CLUB,
    house::{House, Plant, durability_of},
};

impl Client {
    /// Reads up to `bytes` from the socket. False if nothing was there.
    pub fn read(&mut self, house: &mut House, memory: &mut Memory, bytes: usize) -> bool {
        let Some(conn) = self.conn else { return false };
        let Some(line) = house.line(conn) else {
            house.log(|| format!("{} finds its connection gone", self.name()));
            self.lose();
            return true;
        };
        let bytes = bytes.min(line.down.len());
        self.partial.extend(line.down.drain(..bytes));
        while let Some((header, frame)) = take_frame(&mut self.partial) {
            if house.plant == Some(Plant::LostGap) && header.kind == Kind::Gap as u16 {
                continue;
            }
            house.log(|| format!("{} reads {:?} {header:?}", self.name(), Kind::from_wire(header.kind)));
            self.on_frame(house, memory, header, &frame);
            if self.conn.is_none() {
                return true;
            }
        }
        bytes > 0
    }

    pub(super) fn on_frame(&mut self, house: &mut House, memory: &mut Memory, header: Header, frame: &Bytes) {
        let body = &frame[HEADER_BYTES..];
        // A goodbye is not waited for: its close ends everything.
        let kind = Kind::from_wire(header.kind).unwrap();
        if kind == Kind::Attached {
            return self.on_attached(house, header.request, &decode(body));
        }
        if self.on_resumed(house, kind, header, body) {
            return;
        }
        let asked = header.request != 0 && kind != Kind::Close;
        let ask = asked.then(|| {
            let ask = self.waiting.remove(&header.request);
            ask.unwrap_or_else(|| panic!("an answer to {}, which nobody asked", header.request))
        });
        match (kind, ask) {
            (Kind::Welcome, Some(Ask::Hello(resume))) => self.on_welcome(house, &decode(body), resume),
            (Kind::Done, Some(Ask::Follow(_))) => house.count("followed"),
            (Kind::Joined, Some(Ask::Join(at, from))) => {
                self.views[at].on_joined(&decode(body), from);
                self.is_let_in(at, header.request);
            }
            (Kind::Left, Some(Ask::Leave(at))) => {
                let left: Left<'_> = decode(body);
                let view = &mut self.views[at];
                assert_eq!(left.cursor, view.position, "what was sent before the end of a membership has arrived");
                view.leave();
            }
            (Kind::Ack, Some(Ask::Publish(at, nonce))) => self.views[at].on_ack(&decode(body), nonce),
            (Kind::Ack, Some(Ask::Part(at, nonce))) => {
                house.count("parts survive a connection");
                self.views[at].on_ack(&decode(body), nonce);
            }
            (Kind::PartTaken, Some(Ask::Part(..))) => house.count("sent in parts"),
            // The part before it has completed the message already, and this one is taken for the first of a new one.
            (Kind::PartTaken, Some(Ask::Publish(at, nonce))) => {
                let view = &mut self.views[at];
                view.sent = view.sent.min(nonce - 1);
            }
            (Kind::Page, Some(Ask::Fetch(at, start, direction))) => {
                let me = self.key.clone();
                self.views[at].on_page(house, memory, &me, &decode(body), (start, direction));
            }
            (Kind::HeartbeatAck, Some(Ask::Beat)) => {}
            (Kind::RoomPresence, Some(Ask::Watch(at, true))) => self.on_present(at, &decode(body), true),
            (Kind::RoomPresence, None) => {
                let told: RoomPresence<'_> = decode(body);
                let at = self.views.iter().position(|view| view.number == told.room);
                self.on_present(at.unwrap(), &told, false);
            }
            (Kind::Done, Some(Ask::Watch(at, false))) => self.views[at].present = None,
            (Kind::Error, Some(ask)) => self.on_error(house, &decode(body), ask),
            (Kind::Deliver, None) => {
                let room = with_deliver(frame, |deliver| deliver.room);
                let me = self.key.clone();
                self.view(room).on_deliver(house, memory, &me, frame);
            }
            (Kind::Detached, None) => {
                let detached: Detached<'_> = decode(body);
                let view = self.view(detached.room);
                assert_eq!(detached.cursor, view.position, "what was sent before the end of a membership has arrived");
                view.leave();
                view.told = true;
            }
            (Kind::Gap, None) => {
                let gap: Gap<'_> = decode(body);
                self.view(gap.room).on_gap(house, &gap);
            }
            (Kind::Close, None) => {
                let close: Close<'_> = decode(body);
                house.log(|| format!("{} is closed: {}", self.name(), close.code));
                house.count(match close.code {
                    Code::SlowReader => "closed: slow reader",
                    Code::LeaseExpired => "closed: lease",
                    Code::Replaced if self.session.overlaps() => "closed: replaced",
                    Code::Kicked => "closed: kicked",
                    Code::Goodbye => "closed: goodbye",
                    code => panic!("closed: {code}"),
                });
                if close.code == Code::Goodbye {
                    assert!(self.closing && self.waiting.is_empty(), "goodbye answers all that came before it");
                }
                // A connection whose lease ends before it is welcome never had the session.
                let expired = close.code == Code::LeaseExpired && self.session.is_welcome();
                if expired || matches!(close.code, Code::Goodbye | Code::Kicked) {
                    self.session.is_over();
                }
                self.hang_up(house);
            }
            (kind, ask) => panic!("{kind:?} is no answer to {ask:?}"),
        }
    }

    pub(super) fn view(&mut self, room: RoomNumber) -> &mut View {
        let view = self.views.iter_mut().find(|view| view.number == room && view.is_in());
        view.unwrap_or_else(|| panic!("something of room {room}, which was not joined"))
    }

    pub(super) fn forgets(&self, ask: Ask) -> bool {
        matches!(ask, Ask::Publish(at, _) if durability_of(&self.views[at].name) == Durability::Memory)
    }

    /// Whether the host may have put the client out of the room that it asks something of, or has silenced it.
    fn is_put_out(&self, house: &House, ask: Ask) -> bool {
        let (Ask::Join(at, _) | Ask::Leave(at) | Ask::Publish(at, _) | Ask::Fetch(at, ..) | Ask::Watch(at, _)) = ask
        else {
            return false;
        };
        *self.views[at].name == *CLUB && house.club.may_be_refused(&self.key.user)
    }

    /// Whether it was a change, or is no longer wanted, as after an answer to another try of it.
    pub(super) fn changes(&self, ask: Ask) -> bool {
        let Ask::Publish(at, nonce) = ask else { return false };
        let outbox = &self.views[at].outbox;
        outbox.iter().find(|message| message.nonce == nonce).is_none_or(|message| message.change.is_some())
    }

    pub(super) fn on_error(&mut self, house: &mut House, error: &Error<'_>, ask: Ask) {
        house.log(|| format!("{} is refused: {} {} {ask:?}", self.name(), error.code, error.message));
        let ask = match ask {
            Ask::Part(at, nonce) => Ask::Publish(at, nonce),
            ask => ask,
        };
        let refused = match error.code {
            Code::Busy => "refused: busy",
            Code::RateLimited => "refused: rate limited",
            Code::HeldBack => "refused: held back",
            Code::OutcomeUnknown => "refused: outcome unknown",
            Code::RoomUnavailable => "refused: room unavailable",
            Code::StoreUnavailable => "refused: store unavailable",
            // A `memory` room that was rebuilt has forgotten what it took before what it takes now.
            Code::NonceTooOld if self.forgets(ask) => "refused: too old for a memory room",
            Code::Forbidden | Code::NotJoined if self.is_put_out(house, ask) => "refused: not a member who may",
            Code::NotJoined if matches!(ask, Ask::Publish(..) | Ask::Fetch(..) | Ask::Watch(..)) => {
                "refused: not joined"
            }
            // A change that was refused for good leaves its nonce unused, and a later one may have been stored since.
            Code::NonceTooOld if self.changes(ask) => "refused: a change too old",
            // So does a send while its user was silenced, of which no answer arrived.
            Code::NonceTooOld if self.is_put_out(house, ask) => "refused: too old for one who was silenced",
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
                // Who follows may have been put out and attached again between the question and the answer.
                let came_back = self.follows && *view.name == *CLUB;
                let retries = error.code.advice() == Advice::RetryLater || !view.is_in() || came_back;
                assert!(retries, "{}", error.code);
                if view.outbox.iter().any(|message| message.nonce == nonce) {
                    view.sent = view.sent.min(nonce - 1);
                    view.stalled = !self.hasty;
                }
            }
            Ask::Fetch(..) | Ask::Watch(..) | Ask::Part(..) | Ask::Follow(_) => {}
            // It was put out before, and told of that. It may have joined anew since.
            Ask::Leave(at) if *self.views[at].name == *CLUB => {
                let again = self.waiting.values().any(|ask| matches!(ask, Ask::Leave(other) if *other == at));
                assert!(again || self.views[at].standing != Standing::Leaving, "who is put out is told");
            }
            Ask::Leave(_) | Ask::Beat | Ask::Hello(_) => panic!("{ask:?} is not refused"),
        }
    }
}
