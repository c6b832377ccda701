//! The command line.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Parser, Subcommand};
use parlor::tiers::SendRate;
use parlor_protocol::Name;

use super::bench::options::Bench;

/// An embeddable chat engine: rooms with ordered, durable messages.
#[derive(Debug, Parser)]
#[command(name = "parlor", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(Serve),
    Chat(Chat),
    Replay(Replay),
    Bench(Bench),
}

/// Run a chat server.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Listen here [default: 127.0.0.1:7400].
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,

    /// Keep the rooms in this folder; it is made if it does not exist [default: parlor-data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Read the engine's settings from this TOML file. --listen and --data win over it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// How fast a user may send: one message in so many milliseconds, and so many at once after a rest; "off" for as fast
    /// as he likes [default: 1000/10]. Wins over the file.
    #[arg(long, value_name = "off|INTERVAL_MS[/BURST]")]
    pub(crate) send_rate: Option<SendRateArg>,
}

/// How fast a user may send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SendRateArg(pub(crate) SendRate);

impl FromStr for SendRateArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(SendRate::OFF));
        }
        let (interval, burst) = text.split_once('/').unwrap_or((text, ""));
        let number = |text: &str, name: &str| {
            let parsed = text.parse::<u32>().ok().filter(|number| *number > 0);
            parsed.ok_or_else(|| format!("{name} is {text:?}: say off, or INTERVAL_MS[/BURST] in numbers above 0"))
        };
        let burst = if burst.is_empty() { Ok(SendRate::default().burst) } else { number(burst, "the burst") };
        Ok(Self(SendRate { interval_ms: number(interval, "the interval")?, burst: burst? }))
    }
}

/// Talk in a room.
///
/// In a terminal: a screen with the room's newest messages, an input line below. PageUp and PageDown scroll, and older
/// messages are fetched at the top; Up and Down bring back what you typed; Ctrl-C or /quit leaves. Your own lines bear …
/// until they are stored, then ✓, or ! with the reason if the server refused them. If the server goes away, the chat
/// connects again by itself. Behind each message stands its number, by which commands name it: /edit 12 TEXT, /recall,
/// /react 👍, /who, /online, /rooms, /create, /add, /kick, /dm; /help lists them.
///
/// With the standard input or output not a terminal: a pipe. The room's newest 100 messages and all that follow go to
/// the standard output as lines `HH:MM <name> text`, what happens to them as lines `HH:MM * name edited 12: text`; each line of
/// the input is sent; notices and refusals go to the standard error. When the input ends, the chat waits until every line is stored and the messages up to the last of
/// them are written, and exits: with 0, or with 1 if a line was not stored. To keep listening, keep the input open:
/// `tail -f /dev/null | parlor chat lobby --as ear`.
#[derive(Debug, clap::Args)]
pub(crate) struct Chat {
    /// The room's name.
    pub(crate) room: Name,

    /// Your name.
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) name: Name,

    /// The server. Given several times, the chat goes to the nearest that answers, and to another when that is lost.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400")]
    pub(crate) server: Vec<String>,

    /// This device's name. One connection per device: a second one closes the first [default: a new one].
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<Name>,

    /// In a pipe, take lines that begin with / for commands, one after the other, and write their answers as lines that begin
    /// with "* ". A line that begins with // is sent without the first.
    #[arg(long)]
    pub(crate) commands: bool,

    /// In a pipe, begin each line of the output with the number of its message, by which commands name it.
    #[arg(long)]
    pub(crate) numbers: bool,

    /// Keep in this folder what you said and is not stored yet: if the chat ends first, it goes out when you join the room
    /// the next time, as the same device. The folder is made if it does not exist.
    #[arg(long, value_name = "DIR", requires = "device")]
    pub(crate) outbox: Option<PathBuf>,
}

/// Replay IRC logs as real traffic, and check what comes of it.
///
/// Every nick of a log is a client with a TCP connection of its own: it joins and leaves as the log says, a rename is a
/// leave of the old nick and a join of the new one, and who speaks before joining joins then. Lines of different nicks
/// run concurrently, at most 256 unacknowledged over all; one nick's stay in order. What every client receives is checked
/// as it comes: each record once, in order, without a hole.
///
/// Line forms: `[HH:MM] <nick> text`, `=== nick has joined #channel`, `=== nick has left #channel`, `=== old is now
/// known as new`. Anything else is skipped and counted.
///
/// Exits with 1 if anything was lost, repeated, out of order, or stored other than it was sent, and says what on the
/// standard error.
#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    /// The logs, in order.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// The server; without it, an engine of this process on a temporary folder, its limit on the send rate off.
    #[arg(long, value_name = "ADDR")]
    pub(crate) server: Option<String>,

    /// Make each file a room, named after the file, and replay the files concurrently. Otherwise all files go to one
    /// room, one after the other.
    #[arg(long)]
    pub(crate) room_per_file: bool,

    /// The room, if there is but one.
    #[arg(long, value_name = "NAME", default_value = "replay", conflicts_with = "room_per_file")]
    pub(crate) room: Name,

    /// Put this many silent readers into every room, from before the first line to the end.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) readers: usize,

    /// Replay at this many times the speed of the log, by its minutes; otherwise as fast as it goes.
    #[arg(long, value_name = "X")]
    pub(crate) speed: Option<Speed>,

    /// Read every room back at the end and compare it with what was sent and acknowledged.
    #[arg(long)]
    pub(crate) verify: bool,

    /// Let messages live so many milliseconds only, in the engine of this process, so that it deletes them while the replay
    /// goes on. What has expired need not be there in the end, nor come to who was late; everything else must.
    #[arg(long, value_name = "MS", conflicts_with = "server", value_parser = clap::value_parser!(u32).range(100..))]
    pub(crate) lifetime_ms: Option<u32>,

    /// Lose this share of the acks on their way, so that clients have to send again. Whatever else the server says to such a
    /// client is held until it has: otherwise its own message, delivered, would be as good as the ack.
    #[arg(long, value_name = "SHARE")]
    pub(crate) drop_acks: Option<DropShare>,

    /// Send a message again when its ack has not come after so many milliseconds [default: 15000, with --drop-acks 500].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(10..=600_000))]
    pub(crate) ack_timeout_ms: Option<u32>,

    /// What chooses the acks that are lost: the same number chooses alike.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Print the result as one JSON object, the last line of the standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Replay {
    /// How long a message waits for its ack before it is sent again.
    pub(crate) fn ack_timeout(&self) -> Duration {
        let usual = if self.drop_acks.is_some() { 500 } else { 15_000 };
        Duration::from_millis(self.ack_timeout_ms.unwrap_or(usual).into())
    }
}

/// A share of the acks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DropShare(pub(crate) f64);

impl FromStr for DropShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Self(share)),
            _ => Err("a share is 0 to 1".to_owned()),
        }
    }
}

/// How many times faster than the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Speed(pub(crate) f64);

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The bounds keep every division by a speed within what a Duration holds.
        match text.parse::<f64>() {
            Ok(times) if (0.001..=1e9).contains(&times) => Ok(Self(times)),
            Ok(_) => Err("a speed is between 0.001 and 1000000000".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_send_rate_without_a_burst_has_the_usual_one() {
        let parse = |text: &str| text.parse::<SendRateArg>().unwrap().0;
        assert_eq!(parse("250"), SendRate { interval_ms: 250, burst: 10 });
        assert_eq!(parse("250/1"), SendRate { interval_ms: 250, burst: 1 });
        assert_eq!(parse("off"), SendRate::OFF);
    }

    #[track_caller]
    fn check(line: &str, ok: bool) {
        let parsed = Args::try_parse_from(line.split(' '));
        assert_eq!(parsed.is_ok(), ok, "{line}: {parsed:?}");
    }

    #[test]
    fn command_lines() {
        check("parlor chat lobby --as ann", true);
        check("parlor chat lobby", false);
        check("parlor chat lobby --as a\u{1}", false);
        check("parlor replay a.log b.log --room-per-file --readers 3 --speed 60 --verify --json", true);
        check("parlor replay", false);
        check("parlor replay a.log --drop-acks 0.1 --ack-timeout-ms 300 --seed 7", true);
        check("parlor replay a.log --drop-acks 1.5", false);
        check("parlor replay a.log --speed 0", false);
        check("parlor chat lobby --as ann --commands --numbers", true);
        check("parlor chat lobby --as ann --device phone --outbox /tmp/x", true);
        check("parlor chat lobby --as ann --outbox /tmp/x", false);
        check("parlor replay a.log --speed NaN", false);
        check("parlor replay a.log --room-per-file --room x", false);
        check("parlor serve --listen 0.0.0.0:7400 --data /tmp/x", true);
        check("parlor serve --send-rate off", true);
        check("parlor serve --send-rate 500/3", true);
        check("parlor serve --send-rate 0", false);
        check("parlor serve --send-rate 500/x", false);
    }
}
