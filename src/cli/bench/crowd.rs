//! Brings all clients in and all rooms into being, before there is any load.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::ProgressBar;
use parlor::client::{Client, Config, DeviceClass, Durability, Events, JoinFrom, Network, Room};
use parlor_protocol::Name;

use super::options::{Bench, Cast};
use crate::cli::sanitize;

/// How long the first connection may take to be made, and then again to be welcomed: whether there is a server at all
/// shall be known soon.
const FIRST_PATIENCE: Duration = Duration::from_secs(4);

/// How long each of the others is tried for, since a thousand at once may have to queue, and how long a join may take.
const PATIENCE: Duration = Duration::from_secs(6);

/// Clients that connect at a time.
const CONCURRENCY: usize = 64;

/// How long a publish waits for its ack before it is sent again, and how often: a server under test may be slow.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);
const ACK_RETRIES: u32 = 2;

/// Events that may wait for a member before its client stops reading.
const EVENTS_MAX: usize = 1_024;

/// A client in its room.
pub(crate) struct Seat {
    /// Its number.
    pub(crate) client: usize,
    /// Its connection.
    pub(crate) connection: Client,
    /// Its room.
    pub(crate) room: Room,
    /// What comes there.
    pub(crate) events: Events,
}

/// Connects and joins all, the first one alone.
///
/// # Errors
/// If one cannot come in, or a room is not as the options demand.
pub(crate) async fn gather(args: &Bench, cast: &Arc<Cast>, prefix: &str) -> anyhow::Result<Vec<Seat>> {
    let first = enter(args, cast, prefix, 0).await?;
    let demanded = args.durability.unwrap_or(first.room.joined().durability);
    check(std::slice::from_ref(&first), cast, demanded)?;
    let bar = ProgressBar::new(cast.users.len() as u64);
    if let Ok(style) = indicatif::ProgressStyle::with_template("{wide_bar} {pos}/{len} clients") {
        bar.set_style(style);
    }
    bar.inc(1);
    let others = stream::iter(1..cast.users.len()).map(async |client| {
        let seat = enter(args, cast, prefix, client).await;
        bar.inc(1);
        seat.with_context(|| format!("client {} of {} cannot take part", client + 1, cast.users.len()))
    });
    let mut seats: Vec<Seat> = others.buffer_unordered(CONCURRENCY).try_collect().await?;
    seats.push(first);
    seats.sort_by_key(|seat| seat.client);
    bar.finish_and_clear();
    check(&seats, cast, demanded)?;
    Ok(seats)
}

async fn enter(args: &Bench, cast: &Cast, prefix: &str, client: usize) -> anyhow::Result<Seat> {
    let mut config = Config::new("", cast.users[client].clone());
    config.servers.clone_from(&args.server);
    config.device_class = DeviceClass::Bot;
    config.network = Network::Wired;
    config.ack_timeout = ACK_TIMEOUT;
    config.ack_retries = ACK_RETRIES;
    config.events_max = EVENTS_MAX;
    if client == 0 {
        config.connect_timeout = FIRST_PATIENCE;
    } else {
        config.connect_timeout = PATIENCE;
        config.connect_patience = PATIENCE;
    }
    let connection = Client::connect(config).await?;
    let name = room_name(prefix, cast.room(client))?;
    let (room, events) = tokio::time::timeout(PATIENCE, connection.join(&name, JoinFrom::Tail))
        .await
        .with_context(|| format!("no answer to the join of {name} within {} s", PATIENCE.as_secs()))?
        .with_context(|| format!("cannot join {name}"))?;
    Ok(Seat { client, connection, room, events })
}

fn room_name(prefix: &str, room: usize) -> anyhow::Result<Name> {
    Name::parse(&format!("{prefix}-r{room}")).context("--prefix is too long: take a shorter one")
}

/// Nobody else may speak in the rooms, and all have to store as demanded.
fn check(seats: &[Seat], cast: &Cast, demanded: Durability) -> anyhow::Result<()> {
    for seat in seats {
        let joined = seat.room.joined();
        if joined.durability != demanded {
            bail!(
                "room {} stores {}, not {}: start the server with `durability = \"{}\"` under [rooms], and take another \
                 --prefix, since a room keeps what it was created with",
                seat.room.name(),
                word(joined.durability),
                word(demanded),
                word(demanded)
            );
        }
        let tail = seats[cast.room(seat.client)].room.joined().tail;
        ensure!(
            joined.tail == tail,
            "somebody else speaks in room {}: take another --prefix",
            sanitize::text(seat.room.name())
        );
    }
    Ok(())
}

/// As in a configuration file.
pub(crate) fn word(durability: Durability) -> &'static str {
    match durability {
        Durability::Memory => "memory",
        Durability::Buffered => "buffered",
        Durability::Synced => "synced",
    }
}
