//! Which sessions there are: which device has which connection, who takes whose place, and what is kept of a session
//! whose connection broke, until its lease ends.
//!
//! In: [`on_opened`](Sessions::on_opened), [`on_closed`](Sessions::on_closed), [`on_tick`](Sessions::on_tick). Out:
//! [`poll`](Sessions::poll). `S` is a handle of a session.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use parlor_protocol::{
    Code, DeviceTag, Name, RoomNumber, Token,
    message::{DeviceClass, JoinFrom},
};

use crate::{limits::Limits, message::Conn, router::Entry, session::parked::Parked};

/// The most sessions that had to go for one, of which it is kept that they must not come back.
const REPLACED_MAX: usize = 8;

/// The most former connections by which a session is known.
const FORMER_MAX: usize = 4;

/// How many sessions one user may have, and which of them has to go when another one begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionPolicy {
    /// As many as he likes, even on one device.
    All,
    /// One on each device: the newer one replaces the older.
    #[default]
    OnePerDevice,
    /// One for each class of devices: mobile, desktop, web and so on.
    OnePerClass,
    /// One.
    Single,
}

/// A session that begins, or goes on over a new connection.
#[derive(Debug)]
pub struct Opening<S> {
    /// Whose.
    pub user: Name,
    /// The session as others will see it.
    pub presence: Arc<Entry>,
    /// Its token, if it is a new one.
    pub token: Token,
    /// The token of the session that its client wants to take up again.
    pub resume: Option<Token>,
    /// Of several that do so, the highest wins.
    pub attempt: u64,
    /// The session.
    pub session: S,
}

/// Which sessions of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those of this device.
    Device(DeviceTag),
    /// The one that has this connection, or had it and only a few since.
    Session(Conn),
}

/// What is to be done about sessions.
#[derive(Debug)]
pub enum Told<S> {
    /// Let a session begin that wanted to take another up: with what is left of that, or as a new one.
    Begin(S, Option<Box<Parked>>),
    /// End a session. With [`Code::Superseded`] another one goes on with what it was: it says so with
    /// [`on_closed`](Sessions::on_closed) at once.
    End(S, Code),
    /// End a session that may come back after so many milliseconds: its device's sessions kept failing.
    PutOff(S, u64),
    /// End a session for good: the host says so, for this reason.
    Kick(S, Arc<str>),
    /// Tell a session that follows its user that he was added to a room, and where delivery begins.
    Added(S, RoomNumber, Name, JoinFrom),
    /// A session is there.
    Enter(Name, Arc<Entry>),
    /// A session goes on over another connection, or without one.
    Move(Name, Conn, Arc<Entry>),
    /// A session's connection broke. It may come back.
    Rest(Name, Conn),
    /// A session is over.
    Exit(Name, Conn),
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions<S> {
    limits: Arc<Limits>,
    policy: SessionPolicy,
    /// By user. Most have one.
    users: HashMap<Name, Vec<Session<S>>>,
    /// Those without a connection, by when they have to be looked at.
    away: BTreeMap<(u64, Conn), Name>,
    told: VecDeque<Told<S>>,
}

#[derive(Debug)]
struct Session<S> {
    /// Its connection, or the last one that it had.
    conn: Conn,
    /// Connections that it had before; the newest are last.
    former: Vec<Conn>,
    device: DeviceTag,
    class: DeviceClass,
    token: Token,
    /// The token that its hello carried, where that was of no session any more. Other attempts with it are of the same client.
    instead_of: Option<Token>,
    /// Sessions that had to go for it, and may not have heard of that. The newest are last.
    replaced: Vec<(DeviceTag, Token)>,
    attempt: u64,
    /// It hears of rooms that its user is added to.
    follows: bool,
    status: Status<S>,
}

#[derive(Debug)]
enum Status<S> {
    Here(S),
    /// It passes from the connection `from` to its newest one, unless that has broken, too.
    Passing(Box<Passing<S>>),
    Away {
        until: u64,
        parked: Box<Parked>,
    },
}

#[derive(Debug)]
struct Passing<S> {
    from: Conn,
    to: Option<S>,
    /// The token that its newest hello carried.
    resume: Token,
    /// The session's token if it begins anew.
    fresh: Token,
}

impl<S: Clone> Sessions<S> {
    /// No session.
    #[must_use]
    pub fn new(limits: Arc<Limits>, policy: SessionPolicy) -> Self {
        Self { limits, policy, users: HashMap::new(), away: BTreeMap::new(), told: VecDeque::new() }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Told<S>> {
        self.told.pop_front()
    }

    /// How many sessions there are, with or without a connection.
    #[must_use]
    pub fn count(&self) -> usize {
        self.users.values().map(Vec::len).sum()
    }

    /// How many sessions have no connection.
    #[must_use]
    pub fn away(&self) -> usize {
        self.away.len()
    }

    /// A client has said hello.
    pub fn on_opened(&mut self, opening: Opening<S>) {
        let sessions = self.users.get_mut(&opening.user).map_or(&mut [][..], Vec::as_mut_slice);
        let tag = opening.presence.device_tag();
        let replaced = |session: &Session<S>| {
            session.replaced.iter().any(|(device, token)| *device == tag && Some(*token) == opening.resume)
        };
        if sessions.iter().any(replaced) {
            // It comes back by itself: it must not put out the one that its user began since.
            return self.told.push_back(Told::End(opening.session, Code::Replaced));
        }
        // Where the session of its token is gone, another attempt of its own client may have begun anew in its place.
        let is = |session: &Session<S>| {
            let tokens = [Some(session.token), session.instead_of];
            session.device == tag && opening.resume.is_some() && tokens.contains(&opening.resume)
        };
        let at = sessions.iter().position(is);
        let (Some(at), Some(resume)) = (at, opening.resume) else { return self.begin(opening) };
        let known = &mut sessions[at];
        if opening.attempt <= known.attempt {
            // It was overtaken by a later attempt of its own client.
            return self.told.push_back(Told::End(opening.session, Code::Superseded));
        }
        let Opening { user, presence, token: fresh, attempt, session, .. } = opening;
        let before = std::mem::replace(&mut known.conn, presence.conn());
        if known.former.len() == FORMER_MAX {
            known.former.remove(0);
        }
        known.former.push(before);
        (known.attempt, known.class) = (attempt, presence.device_class());
        self.told.push_back(Told::Move(user.clone(), before, presence));
        let passing = Box::new(Passing { from: before, to: Some(session), resume, fresh });
        match std::mem::replace(&mut known.status, Status::Passing(passing)) {
            Status::Here(older) => self.told.push_back(Told::End(older, Code::Superseded)),
            Status::Passing(overtaken) => {
                if let Status::Passing(passing) = &mut known.status {
                    passing.from = overtaken.from;
                }
                self.told.extend(overtaken.to.map(|session| Told::End(session, Code::Superseded)));
            }
            Status::Away { until, parked } => {
                self.away.remove(&(until, before));
                self.pass(&user, at, Some(parked));
            }
        }
    }

    /// A new session.
    fn begin(&mut self, opening: Opening<S>) {
        let Opening { user, presence, token, resume, attempt, session } = opening;
        let (device, class, conn) = (presence.device_tag(), presence.device_class(), presence.conn());
        let policy = self.policy;
        // Most users have one.
        let sessions = self.users.entry(user.clone()).or_insert_with(|| Vec::with_capacity(1));
        let goes = |older: &mut Session<S>| match policy {
            SessionPolicy::All => false,
            SessionPolicy::OnePerDevice => older.device == device,
            SessionPolicy::OnePerClass => older.class == class || older.device == device,
            SessionPolicy::Single => true,
        };
        let mut replaced = Vec::new();
        for older in sessions.extract_if(.., goes) {
            replaced.extend(older.replaced);
            // Its client may know it by either.
            replaced.extend([older.instead_of, Some(older.token)].into_iter().flatten().map(|it| (older.device, it)));
            match older.status {
                Status::Here(session) => self.told.push_back(Told::End(session, Code::Replaced)),
                Status::Passing(passing) => {
                    self.told.extend(passing.to.map(|session| Told::End(session, Code::Replaced)));
                }
                Status::Away { until, .. } => {
                    self.away.remove(&(until, older.conn));
                }
            }
            self.told.push_back(Told::Exit(user.clone(), older.conn));
        }
        if resume.is_some() {
            self.told.push_back(Told::Begin(session.clone(), None));
        }
        self.told.push_back(Told::Enter(user, presence));
        while replaced.len() > REPLACED_MAX {
            // First those of this very device: a program that is started again and again leaves many that nobody has.
            let own = replaced.iter().position(|(of, _)| *of == device);
            replaced.remove(own.unwrap_or_default());
        }
        let (instead_of, status) = (resume, Status::Here(session));
        let former = Vec::new();
        sessions.push(Session {
            conn,
            former,
            device,
            class,
            token,
            instead_of,
            replaced,
            attempt,
            follows: false,
            status,
        });
    }

    /// A session's connection is gone, or it is superseded. `parked` is what is left of it; `None` if it is over.
    pub fn on_closed(&mut self, user: &Name, conn: Conn, parked: Option<Box<Parked>>) {
        let Some(sessions) = self.users.get_mut(user) else { return };
        let of = |session: &Session<S>| {
            session.conn == conn || matches!(&session.status, Status::Passing(passing) if passing.from == conn)
        };
        // One that was replaced is not known any more.
        let Some(at) = sessions.iter().position(of) else { return };
        match &mut sessions[at].status {
            Status::Passing(passing) if passing.from != conn => passing.to = None,
            Status::Passing(_) => self.pass(user, at, parked),
            Status::Here(_) => match parked {
                Some(parked) => self.park(user, at, parked),
                None => self.remove(user, at),
            },
            Status::Away { .. } => {}
        }
    }

    /// What is left of a session has come from the connection that it passes from.
    fn pass(&mut self, user: &Name, at: usize, parked: Option<Box<Parked>>) {
        let Some(session) = self.users.get_mut(user).and_then(|sessions| sessions.get_mut(at)) else { return };
        let Status::Passing(passing) = &mut session.status else { return };
        match (passing.to.take(), parked) {
            (Some(to), parked) => {
                // A client that comes with a token of no session knows nothing of what an earlier attempt of its has left.
                let parked = parked.filter(|_| passing.resume == session.token);
                if parked.is_none() {
                    session.instead_of = Some(passing.resume);
                    session.token = passing.fresh;
                    // Its client may not want that any more.
                    session.follows = false;
                }
                session.status = Status::Here(to.clone());
                self.told.push_back(Told::Begin(to, parked));
            }
            (None, Some(parked)) => self.park(user, at, parked),
            (None, None) => self.remove(user, at),
        }
    }

    /// A session wants to hear of rooms that its user is added to.
    pub fn on_follow(&mut self, user: &Name, conn: Conn) {
        let mut sessions = self.users.get_mut(user).into_iter().flatten();
        if let Some(session) = sessions.find(|session| session.conn == conn) {
            session.follows = true;
        }
    }

    /// A user was added to a room.
    pub fn on_added(&mut self, user: &Name, room: RoomNumber, name: &Name, from: JoinFrom) {
        for session in self.users.get(user).into_iter().flatten().filter(|session| session.follows) {
            if let Status::Here(here) = &session.status {
                self.told.push_back(Told::Added(here.clone(), room, name.clone(), from));
            }
        }
    }

    /// The host puts sessions out; returns how many. They cannot be taken up again.
    pub fn on_kick(&mut self, user: &Name, which: Which, reason: &Arc<str>) -> usize {
        let Some(sessions) = self.users.get_mut(user) else { return 0 };
        let goes = |session: &mut Session<S>| match which {
            Which::All => true,
            Which::Device(device) => session.device == device,
            Which::Session(conn) => session.conn == conn || session.former.contains(&conn),
        };
        let kicked: Vec<Session<S>> = sessions.extract_if(.., goes).collect();
        if sessions.is_empty() {
            self.users.remove(user);
        }
        let count = kicked.len();
        for session in kicked {
            self.told.push_back(Told::Exit(user.clone(), session.conn));
            let here = match session.status {
                Status::Here(session) => Some(session),
                Status::Passing(passing) => passing.to,
                Status::Away { until, .. } => {
                    self.away.remove(&(until, session.conn));
                    None
                }
            };
            self.told.extend(here.map(|session| Told::Kick(session, reason.clone())));
        }
        count
    }

    /// Keeps a session without a connection. Where too many are kept, the one that would end first has to go.
    fn park(&mut self, user: &Name, at: usize, parked: Box<Parked>) {
        let Some(sessions) = self.users.get_mut(user) else { return };
        let (until, conn) = (parked.deadline(), sessions[at].conn);
        sessions[at].status = Status::Away { until, parked };
        self.away.insert((until, conn), user.clone());
        self.told.push_back(Told::Rest(user.clone(), conn));
        let away = |session: &Session<S>| match session.status {
            Status::Away { until, .. } => Some((until, session.conn)),
            Status::Here(_) | Status::Passing(_) => None,
        };
        let (kept, first) = sessions
            .iter()
            .filter_map(away)
            .fold((0, (u64::MAX, conn)), |(kept, first), key| (kept + 1, if key.0 < first.0 { key } else { first }));
        if kept > self.limits.sessions_away_per_user_max {
            self.end_away(first);
        }
        if self.away.len() > self.limits.sessions_away_max
            && let Some((&first, _)) = self.away.first_key_value()
        {
            self.end_away(first);
        }
    }

    fn end_away(&mut self, key: (u64, Conn)) {
        let Some(user) = self.away.remove(&key) else { return };
        let at = self.users.get(&user).and_then(|sessions| sessions.iter().position(|session| session.conn == key.1));
        if let Some(at) = at {
            self.remove(&user, at);
        }
    }

    fn remove(&mut self, user: &Name, at: usize) {
        let Some(sessions) = self.users.get_mut(user) else { return };
        let conn = sessions.swap_remove(at).conn;
        if sessions.is_empty() {
            self.users.remove(user);
        }
        self.told.push_back(Told::Exit(user.clone(), conn));
    }

    /// Time passed: sessions whose lease has ended are over.
    pub fn on_tick(&mut self, now_mono: u64) {
        while let Some(entry) = self.away.first_entry()
            && entry.key().0 <= now_mono
        {
            let ((_, conn), user) = entry.remove_entry();
            let Some(sessions) = self.users.get_mut(&user) else { continue };
            let Some(at) = sessions.iter().position(|session| session.conn == conn) else { continue };
            let Status::Away { until, parked } = &mut sessions[at].status else { continue };
            if parked.lives(now_mono) {
                *until = parked.deadline();
                self.away.insert((*until, conn), user);
            } else {
                self.remove(&user, at);
            }
        }
    }
}

#[cfg(test)]
mod tests;
