//! Actors that panic: what is told of them, and what becomes of sessions that do.

use std::{
    fmt::{Debug, Write as _},
    sync::{Arc, OnceLock, atomic::Ordering::SeqCst},
};

use parking_lot::Mutex;
use parlor_protocol::{
    Code, Epoch, Extensions, List,
    message::{Detached, Durability, JoinFrom, Position, Resume, Welcome},
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use super::{Client, Engine, Socket, wait_for, wait_for_census};

/// Keeps what is logged, a line for each event.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The log of all tests of this process.
fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        tracing::subscriber::set_global_default(log.clone()).unwrap();
        log
    })
}

/// Waits for a line that has all of these.
#[track_caller]
fn told(parts: &[&str]) {
    let has = |line: &String| parts.iter().all(|part| line.contains(part));
    wait_for("it is told", || log().0.lock().iter().any(has));
}

#[test]
fn a_channel_that_panics_is_told_with_its_room_and_its_cause() {
    log();
    let engine = Engine::start(Durability::Synced, true);
    let mut ann = engine.connect("ann", 0);
    ann.join(JoinFrom::Tail);
    engine.store.faults(|faults| faults.overstate_next_append = true);
    ann.insist(1, &mut Vec::new());
    told(&["room=room", "the store committed seq"]);
}

#[test]
fn a_session_that_panics_is_told_with_its_user_and_its_cause() {
    log();
    let engine = Engine::start(Durability::Synced, true);
    let mut eve = engine.connect("eve", 0);
    engine.clock.breaks_a_session.store(true, SeqCst);
    eve.publish(1);
    assert!(eve.until_closed(Code::Internal).is_empty());
    told(&["user=eve", "a planted panic"]);
}

/// Ann, over a wire like this, in the room and with one message there, when her session's actor panics; and her token.
fn fails(engine: &Engine, near: bool) -> (Client, [u8; 16]) {
    let token = [1; 16];
    let (mut ann, _) = engine.hello_over(Socket { near, ..Socket::default() }, "ann", 0, token, None);
    ann.join(JoinFrom::Tail);
    assert_eq!(ann.insist(1, &mut Vec::new()), (1, false));
    engine.clock.breaks_a_session.store(true, SeqCst);
    ann.publish(2);
    (ann, token)
}

#[test]
fn a_session_that_panics_ends_its_connection_and_waits_for_its_client() {
    let engine = Engine::start(Durability::Synced, true);
    let mut bob = engine.connect("bob", 0);
    let (mut ann, token) = fails(&engine, false);
    ann.until_closed(Code::Internal);
    wait_for_census(&engine, "it is counted", |census| census.sessions_failed == 1);
    bob.join(JoinFrom::Tail);
    assert_eq!(bob.insist(1, &mut Vec::new()), (2, false), "her neighbours do not notice");
    let sessions = engine.fleet.shared().router.sessions("ann");
    assert_eq!(sessions.iter().map(|session| session.connected).collect::<Vec<_>>(), [false], "she is online");

    let (mut later, welcome) = engine.hello("ann", 1, [9; 16], Some((token, 2)));
    let welcome: Welcome<'_> = welcome.body();
    assert_eq!((welcome.resumed, welcome.token.0), (true, token));
    let since = |engine: &Engine| engine.fleet.shared().router.sessions("ann")[0].since;
    assert_eq!(since(&engine), sessions[0].since, "it is the same session");
    // It has forgotten its rooms. Its client stands where it stood.
    let position = Position { room: ann.room, epoch: Epoch(1), seq: 1 };
    later.send(&Resume { positions: List(vec![position]), extensions: Extensions::default() });
    let answer = later.next();
    assert_eq!(answer.body::<Detached<'_>>().code, Code::NotJoined);
    assert_eq!(later.join(JoinFrom::Position(Epoch(1), 1)), 1);
    assert_eq!(later.deliveries(1, 1).0, [1]);
    assert_eq!(later.insist(2, &mut Vec::new()), (3, false), "what it had sent was not stored");
}

#[test]
fn a_session_that_panics_ends_with_its_lease() {
    let engine = Engine::start(Durability::Synced, true);
    let (mut ann, token) = fails(&engine, false);
    ann.until_closed(Code::Internal);
    let router = &engine.fleet.shared().router;
    wait_for("her connection is gone", || router.conns("ann").is_empty());
    wait_for_census(&engine, "it is counted", |census| census.sessions_failed == 1);
    assert_eq!(router.sessions("ann").len(), 1);
    // Three grants of a second and a tenth.
    engine.clock.clock.advance(3_300);
    wait_for("she is offline", || router.sessions("ann").is_empty());
    let (_, welcome) = engine.hello("ann", 0, [9; 16], Some((token, 2)));
    assert!(!welcome.body::<Welcome<'_>>().resumed);
}

#[test]
fn a_session_that_panics_beside_its_client_is_over() {
    let engine = Engine::start(Durability::Synced, true);
    fails(&engine, true).0.until_closed(Code::Internal);
    wait_for("she is offline", || engine.fleet.shared().router.sessions("ann").is_empty());
}
