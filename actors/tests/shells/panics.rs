//! What is told of an actor that panics.

use std::{
    fmt::{Debug, Write as _},
    sync::{Arc, OnceLock, atomic::Ordering::SeqCst},
};

use parking_lot::Mutex;
use parlor_protocol::{
    Code,
    message::{Durability, JoinFrom},
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use super::{Engine, wait_for};

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
