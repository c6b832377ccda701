//! Puts together what the members came to, room by room. Pure.

use std::collections::BTreeMap;

use super::{
    check::{Sent, Wrong},
    member::Outcome,
    options::Cast,
};
use crate::cli::faults::Faults;

/// What a whole run came to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Messages sent.
    pub(crate) sent: u64,
    /// Messages acknowledged.
    pub(crate) acked: u64,
    /// Messages refused for good, by code.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Messages whose outcome is unknown.
    pub(crate) unanswered: u64,
    /// Messages that were due and not sent.
    pub(crate) unsent: u64,
    /// Sends that were refused for now or not answered in time, and sent again.
    pub(crate) retried: u64,
    /// How many of these the server's rate limit refused.
    pub(crate) rate_limited: u64,
    /// Deliveries that acknowledged messages make.
    pub(crate) owed: u64,
    /// Messages that came to members.
    pub(crate) delivered: u64,
    /// What was wrong.
    pub(crate) wrong: Wrong,
    /// Connections that were made again.
    pub(crate) reconnects: u64,
    /// Clients that could not leave at the end.
    pub(crate) unfinished: u64,
    /// What went wrong first, in words.
    pub(crate) faults: Faults,
}

/// Adds up; `outcomes` in the order of the clients.
pub(crate) fn verdict(cast: &Cast, mut outcomes: Vec<Outcome>) -> Verdict {
    let mut verdict = Verdict::default();
    let sent: Vec<Sent> = outcomes.iter().map(|outcome| outcome.sent.clone()).collect();
    let mut digests: BTreeMap<usize, (usize, u64)> = BTreeMap::new();
    for outcome in &mut outcomes {
        let room = cast.room(outcome.client);
        for seat in 0..cast.publishers(room) {
            let client = seat * cast.rooms + room;
            let lost = outcome.stream.missing(seat, &sent[client]);
            verdict.owed += sent[client].acked();
            if lost > 0 {
                outcome.faults.note(|| format!("lost {lost} acknowledged messages of client {client}"));
            }
        }
        if outcome.stream.wrong().is_nothing() && outcome.left {
            let (first, digest) = *digests.entry(room).or_insert((outcome.client, outcome.stream.digest()));
            if digest != outcome.stream.digest() {
                outcome.stream.note(Wrong { corrupt: 1, ..Wrong::default() });
                outcome.faults.note(|| format!("holds other messages, or under other seqs, than client {first}"));
            }
        }
    }
    for outcome in outcomes {
        verdict.add(outcome);
    }
    verdict
}

impl Verdict {
    fn add(&mut self, outcome: Outcome) {
        let Outcome { stream, sent, unsent, refused, unanswered, left, stats, faults, .. } = outcome;
        self.sent += u64::from(sent.count);
        self.acked += sent.acked();
        self.unsent += unsent;
        self.unanswered += unanswered;
        for (code, count) in refused {
            *self.refused.entry(code).or_default() += count;
        }
        self.retried += stats.refusals + stats.resends;
        self.rate_limited += stats.rate_limited;
        self.delivered += stream.received();
        self.wrong.add(stream.wrong());
        self.reconnects += stats.connections.saturating_sub(1);
        self.unfinished += u64::from(!left);
        self.faults.append(faults);
    }

    /// Whether every member got all that it was owed, once, in order and unchanged.
    pub(crate) fn is_sound(&self) -> bool {
        self.wrong.is_nothing()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser as _;
    use parlor::client::Stats;

    use super::{
        super::{check::Stream, options::Bench, payload::Stamp},
        *,
    };

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    /// Two members, of which client 0 sent three messages, the last one without an ack; member 1 got `seqs`.
    fn run(seqs: &[(u64, u32)]) -> Verdict {
        let line = Line::try_parse_from(["bench", "--clients", "2"]).unwrap();
        let cast = Cast::new(&line.bench, "p").unwrap();
        let outcome = |client, seqs: &[(u64, u32)], count| {
            let mut stream = Stream::new(0, 1);
            for &(seq, number) in seqs {
                stream.message(seq, Some((0, Stamp { client: 0, number, due: 0 })));
            }
            Outcome {
                client,
                stream,
                sent: Sent { count, unacked: if count == 0 { BTreeSet::new() } else { BTreeSet::from([2]) } },
                unsent: 0,
                refused: BTreeMap::from([("Forbidden".to_owned(), 1)]),
                unanswered: 0,
                left: true,
                stats: Stats { connections: 2, refusals: 3, rate_limited: 2, ..Stats::default() },
                faults: Faults::default(),
            }
        };
        verdict(&cast, vec![outcome(0, &[(1, 0), (2, 1)], 3), outcome(1, seqs, 0)])
    }

    #[test]
    fn a_sound_run_adds_up() {
        let verdict = run(&[(1, 0), (2, 1)]);
        assert!(verdict.is_sound() && verdict.faults.is_empty(), "{verdict:?}");
        assert_eq!((verdict.sent, verdict.acked, verdict.owed, verdict.delivered), (3, 2, 4, 4));
        assert_eq!((verdict.retried, verdict.rate_limited, verdict.reconnects), (6, 4, 2));
        assert_eq!(verdict.refused["Forbidden"], 2);
    }

    #[test]
    fn members_have_to_agree() {
        assert_eq!(run(&[(1, 0)]).wrong, Wrong { lost: 1, ..Wrong::default() });
        assert_eq!(run(&[(1, 0), (3, 1)]).wrong, Wrong { corrupt: 1, ..Wrong::default() });
    }
}
