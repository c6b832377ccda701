//! `parlor chat`: a talk in a room, on a screen or through a pipe.
//!
//! [`model`] is what is known, [`input`], [`keys`], [`scroll`], [`layout`] and [`view`] how it is shown and changed, all
//! pure; [`screen`] and [`pipe`] are the shells.

mod clock;
mod input;
mod keys;
mod layout;
mod model;
mod pipe;
mod screen;
mod scroll;
mod view;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use parlor::client::{self, Client, Config, FileOutbox, SyncPolicy};
use parlor_protocol::{
    Name, NameError,
    message::{DeviceClass, JoinFrom, RecordKind},
};

use self::{
    clock::Clock,
    model::{Message, Model},
    screen::Screen,
};
use super::{args::Chat, sanitize};

/// How many messages are shown at first.
const NEWEST: u32 = 100;

/// Joins, talks, leaves.
pub(crate) async fn run(args: Chat) -> anyhow::Result<ExitCode> {
    let mut config = Config::new(args.server.clone(), args.name.clone());
    config.device = args.device.map_or_else(new_device, Ok)?;
    config.device_class = DeviceClass::Desktop;
    if let Some(folder) = &args.outbox {
        let outbox = FileOutbox::open(folder, &config.user, &config.device, SyncPolicy::Each)
            .with_context(|| format!("cannot use the outbox in {}", folder.display()))?;
        config.outbox = Some(Arc::new(Mutex::new(outbox)));
    }
    let client = Client::connect(config).await?;
    let (room, events) = client
        .join(&args.room, JoinFrom::Newest(NEWEST))
        .await
        .with_context(|| format!("cannot join {}", args.room))?;
    let message = {
        let me = args.name.clone();
        move |message| shown(&message, &me)
    };
    let outcome = if io::stdin().is_terminal() && io::stdout().is_terminal() {
        // Delivery begins behind the cursor: what is before it is there to be fetched.
        let older = (room.joined().cursor >= room.joined().first).then_some(room.joined().cursor);
        let model = Model::new(&args.name, &args.room, &args.server, older, Clock::local());
        Screen::new(&room, events, message, model).run().await.map(farewell)
    } else {
        pipe::run(&room, events, message).await
    };
    client.close().await;
    outcome
}

fn farewell(unsent: usize) -> ExitCode {
    match unsent {
        0 => return ExitCode::SUCCESS,
        1 => eprintln!("1 line was not acknowledged before you left; it may not be stored"),
        more => eprintln!("{more} lines were not acknowledged before you left; they may not be stored"),
    }
    ExitCode::FAILURE
}

/// A record as it is shown. Only messages are; other kinds come with later versions.
fn shown(message: &client::Message, me: &Name) -> Option<Message> {
    (message.kind == RecordKind::MESSAGE).then(|| Message {
        seq: message.seq,
        time: message.time,
        sender: sanitize::text(&message.sender).into_owned(),
        text: sanitize::payload(message.content_type, &message.payload),
        mine: message.sender == *me,
        own: message.own.then_some(message.nonce),
    })
}

fn describe_gap(gap: &client::Gap) -> String {
    let client::Gap { from, to, why, .. } = gap;
    match to.checked_sub(*from) {
        Some(0) => format!("message {from} is missing: {why:?}"),
        Some(_) => format!("messages {from} to {to} are missing: {why:?}"),
        None => format!("the room goes on behind {to}: {why:?}"),
    }
}

/// Every run is a device of its own, so that one user can chat in two terminals: a second connection of one device would
/// close the first.
fn new_device() -> Result<Name, NameError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    Name::parse(&format!("terminal-{now:x}-{:x}", std::process::id()))
}
