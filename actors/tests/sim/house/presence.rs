//! Who is online as others see it, held against what the supervisor tells of sessions: each has one entry from its
//! beginning to its end, whatever its connections do meanwhile.

use std::collections::BTreeMap;

use parlor_actors::{
    message::Conn,
    port::DeviceKey,
    supervisor::state::sessions::{Opening, Told},
};
use parlor_protocol::{Code, DeviceTag, Name, Token};

use super::setting::beats;

/// As many as the supervisor keeps.
const REPLACED_MAX: usize = 8;

/// What is known of all sessions.
#[derive(Default)]
pub struct Attendance {
    /// By the connection, or the last one, of each.
    entries: BTreeMap<Conn, Entry>,
    /// What each hello brought.
    hellos: BTreeMap<Conn, Brought>,
    /// What one input made the supervisor tell.
    told: Vec<Heard>,
    /// The tokens of sessions that ended by this input, and of those that had to go for them.
    gone: Vec<Token>,
}

#[derive(Clone, Copy, Debug)]
struct Brought {
    /// The token that the session has if it goes on with nothing.
    fresh: Token,
    resume: Option<Token>,
    attempt: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    user: Name,
    device: DeviceTag,
    token: Token,
    /// The token that its hello carried, of which nothing was left when it began.
    instead_of: Option<Token>,
    /// Those of sessions that had to go for it.
    replaced: Vec<Token>,
    attempt: u64,
    /// Since when it has no connection, on the monotonic clock.
    away: Option<u64>,
    /// Its session has said that its connection is gone, and that it may come back.
    broken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Begin(Conn),
    End(Conn, Code),
    Kick(Conn),
    Added(Conn),
    Enter(Conn),
    Move(Conn, Conn),
    Rest(Conn),
    /// Whose connection had broken before, or not.
    Exit(Conn, bool),
}

/// What an input has to make of sessions, and nothing else.
#[derive(Debug)]
pub enum Expected {
    /// An attempt that was overtaken is told so.
    Overtaken(Conn),
    /// One whose session had to go for another one is told so.
    Replaced(Conn),
    /// The session of one connection goes on over another.
    Goes(Conn, Conn),
    /// A session begins, in the place of these.
    Begins(Conn, Vec<Conn>),
    /// These are put out.
    Kicked(Vec<Conn>),
    /// A connection ended: its session rests, ends or goes on.
    Closed,
    /// Time passed.
    Tick,
    /// Nobody comes or goes.
    Nothing,
}

impl Attendance {
    /// A session says that its connection is gone.
    pub fn breaks(&mut self, conn: Conn) {
        if let Some(entry) = self.entries.get_mut(&conn) {
            entry.broken = true;
        }
    }

    /// Whether a session of a device is there without a connection.
    pub fn is_away(&self, device: &DeviceKey) -> bool {
        let of = |entry: &&Entry| entry.user == device.user && entry.device == device.tag;
        self.entries.values().filter(of).any(|entry| entry.broken || entry.away.is_some())
    }

    /// What a hello has to lead to.
    pub fn opened(&mut self, opening: &Opening<Conn>) -> Expected {
        let Opening { user, presence, token, resume, attempt, session } = opening;
        self.hellos.insert(*session, Brought { fresh: *token, resume: *resume, attempt: *attempt });
        let same = |entry: &Entry| entry.user == *user && entry.device == presence.device_tag();
        let comes_back = |entry: &Entry| resume.is_some_and(|token| entry.replaced.contains(&token));
        if self.entries.values().any(|entry| same(entry) && comes_back(entry)) {
            return Expected::Replaced(*session);
        }
        // An attempt with a token of no session takes over what an earlier one with that has begun.
        let goes = |entry: &Entry| resume.is_some() && [Some(entry.token), entry.instead_of].contains(resume);
        let known = self.entries.iter().find(|(_, entry)| same(entry) && goes(entry));
        match known {
            Some((_, entry)) if *attempt <= entry.attempt => Expected::Overtaken(*session),
            Some((before, _)) => Expected::Goes(*before, *session),
            None => {
                let replaced = self.entries.iter().filter(|(_, entry)| same(entry)).map(|(conn, _)| *conn).collect();
                Expected::Begins(*session, replaced)
            }
        }
    }

    /// The entries that a kick concerns.
    pub fn of(&self, is: impl Fn(&Name, DeviceTag, Conn) -> bool) -> Vec<Conn> {
        let is = |(conn, entry): &(&Conn, &Entry)| is(&entry.user, entry.device, **conn);
        self.entries.iter().filter(is).map(|(conn, _)| *conn).collect()
    }

    /// The supervisor tells something, as the router is told.
    pub fn hear(&mut self, told: &Told<Conn>, now_mono: u64) {
        self.told.push(match told {
            Told::Begin(conn, parked) => {
                if parked.is_none()
                    && let Some(entry) = self.entries.get_mut(conn)
                {
                    let Brought { fresh, resume, .. } = self.hellos[conn];
                    (entry.token, entry.instead_of) = (fresh, resume);
                }
                Heard::Begin(*conn)
            }
            Told::End(conn, code) => Heard::End(*conn, *code),
            Told::PutOff(..) => unreachable!("the supervisor is not told what sessions end of"),
            Told::Kick(conn, _) => Heard::Kick(*conn),
            Told::Added(conn, ..) => Heard::Added(*conn),
            Told::Enter(user, presence) => {
                let Brought { fresh: token, resume: instead_of, attempt } = self.hellos[&presence.conn()];
                let (user, device) = (user.clone(), presence.device_tag());
                let twice = self.entries.values().any(|entry| (&entry.user, entry.device) == (&user, device));
                assert!(!twice && presence.is_connected(), "{user} enters a second time on one device");
                let mut replaced = std::mem::take(&mut self.gone);
                replaced.drain(..replaced.len().saturating_sub(REPLACED_MAX));
                self.entries.insert(
                    presence.conn(),
                    Entry { user, device, token, instead_of, replaced, attempt, away: None, broken: false },
                );
                Heard::Enter(presence.conn())
            }
            Told::Move(user, before, presence) => {
                let mut entry = self.entries.remove(before).unwrap_or_else(|| panic!("{user} was not there"));
                assert!(presence.is_connected(), "{user} was there all the time");
                entry.attempt = self.hellos[&presence.conn()].attempt;
                (entry.away, entry.broken) = (None, false);
                self.entries.insert(presence.conn(), entry);
                Heard::Move(*before, presence.conn())
            }
            Told::Rest(user, conn) => {
                let entry = self.entries.get_mut(conn).unwrap_or_else(|| panic!("{user} was not there"));
                assert_eq!(entry.away.replace(now_mono), None, "{user} loses a connection that he has not");
                Heard::Rest(*conn)
            }
            Told::Exit(user, conn) => {
                let entry = self.entries.remove(conn).unwrap_or_else(|| panic!("{user} goes, and was not there"));
                self.hellos.remove(conn);
                self.gone.extend(entry.replaced);
                self.gone.extend([entry.instead_of, Some(entry.token)].into_iter().flatten());
                Heard::Exit(*conn, entry.away.is_some())
            }
        });
    }

    /// All that an input led to has been told.
    pub fn check(&mut self, expected: &Expected, now_mono: u64) {
        let told = std::mem::take(&mut self.told);
        self.gone.clear();
        let of = |is: fn(&Heard) -> Option<Conn>| -> Vec<Conn> { told.iter().filter_map(is).collect() };
        let is_exit = |heard: &Heard| if let Heard::Exit(conn, _) = heard { Some(*conn) } else { None };
        let is_news = |heard: &Heard| match heard {
            Heard::Enter(conn) | Heard::Move(_, conn) => Some(*conn),
            _ => None,
        };
        let mut exits = of(is_exit);
        exits.sort_unstable();
        let come = of(is_news);
        let ended = |code| told.iter().all(|heard| !matches!(heard, Heard::End(_, other) if *other != code));
        let is_right = match expected {
            Expected::Overtaken(conn) => told == [Heard::End(*conn, Code::Superseded)],
            Expected::Replaced(conn) => told == [Heard::End(*conn, Code::Replaced)],
            Expected::Goes(before, conn) => {
                let goes = told.contains(&Heard::Move(*before, *conn));
                goes && come.len() == 1 && exits.is_empty() && ended(Code::Superseded)
            }
            Expected::Begins(conn, replaced) => come == [*conn] && exits == *replaced && ended(Code::Replaced),
            Expected::Kicked(conns) => come.is_empty() && exits == *conns,
            Expected::Closed => come.is_empty(),
            Expected::Tick => told.iter().all(|heard| matches!(heard, Heard::Exit(_, true))),
            Expected::Nothing => told.iter().all(|heard| matches!(heard, Heard::Added(_))),
        };
        assert!(is_right, "{expected:?}, but told is {told:?}");
        if matches!(expected, Expected::Tick) {
            let lease = 3 * u64::from(beats().wifi_ms + beats().grace_least_ms.max(beats().wifi_ms / 10));
            let kept = self.entries.iter().find(|(_, entry)| entry.away.is_some_and(|since| since + lease < now_mono));
            assert!(kept.is_none(), "{kept:?} is kept beyond its lease, which is at most {lease} ms");
        }
    }

    /// How many sessions others see, and how many of them without a connection.
    pub fn counts(&self) -> (usize, usize) {
        (self.entries.len(), self.entries.values().filter(|entry| entry.away.is_some()).count())
    }
}
