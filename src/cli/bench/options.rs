//! The options of `parlor bench`, and the load that they make.

use std::{path::PathBuf, str::FromStr};

use anyhow::{Context as _, ensure};
use parlor::client::Durability;
use parlor_protocol::{Name, frame::PAYLOAD_BYTES_MAX};

use super::payload::HEADER_BYTES;

/// The client library has as many publishes of a room in flight as this, and no more.
const WINDOW_MAX: u64 = 32;

/// Load-test a server.
///
/// Opens --clients connections, spreads them evenly over --rooms rooms, lets a share of each room's members publish, and
/// checks all that comes: every member must get every message that the server acknowledged, once, in the order of its
/// number in the room, with its sender and its bytes unchanged.
///
/// With --rate the load is open: messages are due at even times whatever the server does, and both latencies count from
/// the time that a message was due, not from when it could at last be sent. So a server that stalls shows the stall in
/// full (no coordinated omission): what could not be sent or was not answered up to the end counts as having taken until
/// then. Without it each publisher keeps --window messages in flight; latency then is mostly
/// queueing, and says the rate in other words.
///
/// Refusals that say "later", such as RateLimited, are obeyed: the client waits as long as the server asks and sends again.
/// They are counted, and the summary says so when it was the server's rate limit that was measured: a server limits
/// each user to one message a second unless it is told otherwise (`parlor serve --send-rate off`). Ctrl-C ends the run
/// early, with the summary.
///
/// Rooms are created by joining, with the server's own settings, and stay on the server. Names begin with --prefix.
///
/// Exits with 0 if nothing was lost, repeated, out of order or corrupt; with 1 if something was, and says what on the
/// standard error; with 2 for wrong options; with 3 if the load could not be run, or not to its end: also
/// if messages were due that could not be sent, because the server was too slow for --rate.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Bench {
    /// The server. Given several times, they are ways to one: each client takes the nearest that answers.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400")]
    pub(crate) server: Vec<String>,

    /// How many clients, each with a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) clients: u32,

    /// How many rooms they are spread over.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rooms: u32,

    /// How many of a room's members publish, as a share (0.1 or 10%); at least one does.
    #[arg(long, value_name = "SHARE", default_value = "10%")]
    pub(crate) publishers: Share,

    /// Messages a second over all publishers; 0 or `max`: as fast as the acks allow.
    #[arg(long, value_name = "RATE", default_value = "max", allow_hyphen_values = true)]
    pub(crate) rate: Rate,

    /// Messages that each publisher has in flight at most, 1 to 32.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=WINDOW_MAX as i64))]
    pub(crate) window: u32,

    /// Bytes of a message, as one number or as a range LEAST-MOST.
    #[arg(long, value_name = "BYTES", default_value = "128")]
    pub(crate) payload: Bytes,

    /// Seconds that are measured.
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    pub(crate) seconds: Seconds,

    /// Seconds of load before; they are checked as well, but not measured.
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    pub(crate) warm: Seconds,

    /// Demand that rooms store so: memory, buffered or synced. The server decides ([rooms] in its configuration); if it
    /// does otherwise, the run ends before the load [default: whatever the server does].
    #[arg(long, value_name = "LEVEL", value_parser = durability)]
    pub(crate) durability: Option<Durability>,

    /// What the names of rooms and users begin with [default: one of this run alone].
    #[arg(long, value_name = "NAME")]
    pub(crate) prefix: Option<Name>,

    /// Also write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// A share, above 0 and up to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share(pub(crate) f64);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, unit) = text.strip_suffix('%').map_or((text, 1.0), |digits| (digits, 100.0));
        match digits.trim().parse::<f64>() {
            Ok(number) if number > 0.0 && number <= unit => Ok(Self(number / unit)),
            _ => Err("a share is above 0 and at most 1, as 0.1 or 10%; 100% lets every member publish".to_owned()),
        }
    }
}

/// Messages a second; 0: as fast as it goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate(pub(crate) f64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Self(0.0)),
            Ok(rate) if rate == 0.0 || (0.001..=1e6).contains(&rate) => Ok(Self(rate)),
            _ => Err("a rate is 0.001 to 1000000 messages a second, or 0 or `max` for as fast as it goes".to_owned()),
        }
    }
}

/// Lengths of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) least: usize,
    pub(crate) most: usize,
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let allowed = HEADER_BYTES..=PAYLOAD_BYTES_MAX as usize;
        match (least.trim().parse(), most.trim().parse()) {
            (Ok(least), Ok(most)) if least <= most && allowed.contains(&least) && allowed.contains(&most) => {
                Ok(Self { least, most })
            }
            _ => Err(format!(
                "a message is {} to {} bytes long, as 128 or 64-1024; its first {HEADER_BYTES} bytes say which it is",
                allowed.start(),
                allowed.end()
            )),
        }
    }
}

/// A time, up to a week.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seconds(pub(crate) f64);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(seconds) if (0.0..=604_800.0).contains(&seconds) => Ok(Self(seconds)),
            _ => Err("seconds are 0 to 604800, as 10 or 0.5".to_owned()),
        }
    }
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "memory" => Ok(Durability::Memory),
        "buffered" => Ok(Durability::Buffered),
        "synced" => Ok(Durability::Synced),
        _ => Err("a level is memory, buffered or synced".to_owned()),
    }
}

/// Who is where. Client `index` is member number `index / rooms` of room `index % rooms`; a room's first members publish.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    /// How many rooms.
    pub(crate) rooms: usize,
    /// The users by client.
    pub(crate) users: Vec<Name>,
    share: f64,
}

impl Cast {
    /// Names everybody.
    ///
    /// # Errors
    /// If options do not fit together.
    pub(crate) fn new(args: &Bench, prefix: &str) -> anyhow::Result<Self> {
        let Bench { clients, rooms, .. } = *args;
        ensure!(
            rooms <= clients,
            "{clients} clients cannot be spread over {rooms} rooms: take --rooms {clients} or fewer, or more --clients"
        );
        ensure!(args.seconds.0 > 0.0, "--seconds 0 measures nothing: take a second or more");
        let users = (0..clients).map(|index| Name::parse(&format!("{prefix}-u{index}")).map_err(anyhow::Error::from));
        let users = users.collect::<anyhow::Result<_>>().context("--prefix is too long: take a shorter one")?;
        Ok(Self { rooms: rooms as usize, users, share: args.publishers.0 })
    }

    /// How many members a room has.
    pub(crate) fn members(&self, room: usize) -> usize {
        (self.users.len() - room).div_ceil(self.rooms)
    }

    /// How many of them publish.
    pub(crate) fn publishers(&self, room: usize) -> usize {
        let members = self.members(room);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count is a count")]
        let share = (members as f64 * self.share - 1e-9).ceil() as usize;
        share.clamp(1, members)
    }

    /// The room of a client.
    pub(crate) fn room(&self, client: usize) -> usize {
        client % self.rooms
    }

    /// A client's number among the members of its room.
    pub(crate) fn seat(&self, client: usize) -> usize {
        client / self.rooms
    }

    /// Whether a client publishes.
    pub(crate) fn publishes(&self, client: usize) -> bool {
        self.seat(client) < self.publishers(self.room(client))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    fn parse(line: &str) -> Result<Bench, String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.bench).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check_wrong(line: &str, says: &str) {
        let cast = parse(line).and_then(|args| Cast::new(&args, "p").map_err(|error| error.to_string()));
        let error = cast.unwrap_err();
        assert!(error.contains(says), "{line}: {error}");
    }

    #[test]
    fn wrong_options_are_explained() {
        check_wrong("--publishers 0", "above 0 and at most 1");
        check_wrong("--publishers 120%", "100% lets every member publish");
        check_wrong("--rate fast", "`max` for as fast as it goes");
        check_wrong("--rate -1", "0.001 to 1000000");
        check_wrong("--payload 8", "32 to 65536 bytes");
        check_wrong("--payload 200-100", "as 128 or 64-1024");
        check_wrong("--window 33", "32");
        check_wrong("--seconds 0", "measures nothing");
        check_wrong("--durability disk", "memory, buffered or synced");
        check_wrong("--clients 10 --rooms 11", "10 clients cannot be spread over 11 rooms");
        check_wrong("--clients 0", "1..=1000000");
    }

    #[test]
    fn options_say_what_they_mean() {
        let args = parse("--rate max --payload 64-1024 --publishers 5% --durability buffered").unwrap();
        assert_eq!((args.rate, args.payload), (Rate(0.0), Bytes { least: 64, most: 1_024 }));
        assert_eq!((args.publishers, args.durability), (Share(0.05), Some(Durability::Buffered)));
        assert_eq!(parse("--rate 2.5").unwrap().rate, Rate(2.5));
    }

    #[test]
    fn clients_are_spread_evenly() {
        let cast = Cast::new(&parse("--clients 11 --rooms 3 --publishers 0.5").unwrap(), "p").unwrap();
        assert_eq!([0, 1, 2].map(|room| cast.members(room)), [4, 4, 3]);
        assert_eq!([0, 1, 2].map(|room| cast.publishers(room)), [2, 2, 2]);
        assert_eq!((0..11).filter(|client| cast.publishes(*client)).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!((cast.room(7), cast.seat(7)), (1, 2));
        let one = Cast::new(&parse("--clients 100 --rooms 1 --publishers 1%").unwrap(), "p").unwrap();
        assert_eq!(one.publishers(0), 1);
    }
}
