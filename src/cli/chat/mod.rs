//! `parlor chat`: a talk in a room, on a screen or through a pipe.
//!
//! [`model`] is what is known, [`record`], [`typing`], [`input`], [`keys`], [`scroll`], [`layout`] and [`view`] how it is shown and
//! changed, [`command`] what is typed behind a slash, [`progress`] what a pipe waits for, all pure; [`screen`] and [`pipe`] are the
//! shells, and [`requests`] asks the server.

mod clock;
mod command;
mod input;
mod keys;
mod layout;
mod model;
mod pipe;
mod progress;
mod record;
mod requests;
mod screen;
mod scroll;
mod typing;
mod view;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use parlor::client::{self, Client, Config, FileOutbox, SyncPolicy};
use parlor_protocol::{
    Name, NameError,
    message::{DeviceClass, JoinFrom},
};

use self::{clock::Clock, model::Model, screen::Screen};
use super::args::Chat;

/// How many messages are shown at first.
const NEWEST: u32 = 100;

/// The longest wait between two attempts to come back: somebody sits there and looks.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Joins, talks, leaves.
pub(crate) async fn run(args: Chat) -> anyhow::Result<ExitCode> {
    let mut config = Config::new("", args.name.clone());
    config.servers.clone_from(&args.server);
    config.device = args.device.map_or_else(new_device, Ok)?;
    config.device_class = DeviceClass::Desktop;
    config.backoff_max = BACKOFF_MAX;
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
    let outcome = if io::stdin().is_terminal() && io::stdout().is_terminal() {
        // Delivery begins behind the cursor: what is before it is there to be fetched.
        let older = (room.joined().cursor >= room.joined().first).then_some(room.joined().cursor);
        let mut model = Model::new(&args.name, &args.room, &args.server.join(", "), older, Clock::local());
        if room.joined().unread > 0 {
            model.had_read(room.joined().read);
        }
        Screen::new(&client, &room, events, model).run().await.map(farewell)
    } else {
        pipe::run(&client, &room, events, pipe::Style { commands: args.commands, numbers: args.numbers }).await
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
