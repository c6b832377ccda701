//! What a replay came to.

use std::fmt;

use serde::Serialize;

use super::{compare::Findings, stream::Totals};

/// The result; its fields in the order of the printed object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Report {
    /// Logs that were read.
    pub(crate) files: u64,
    /// Rooms that they were replayed to.
    pub(crate) rooms: u64,
    /// Nicks over all rooms.
    pub(crate) clients: u64,
    /// Lines that say something.
    pub(crate) messages: u64,
    /// Lines that could not be replayed.
    pub(crate) skipped: u64,
    /// Messages that the server acknowledged.
    pub(crate) acked: u64,
    /// Acks that did not arrive; none without `--drop-acks`.
    pub(crate) acks_dropped: Option<u64>,
    /// Messages that were sent again since no ack came.
    pub(crate) resends: u64,
    /// Records read back; none without `--verify`.
    pub(crate) stored: Option<u64>,
    /// Records that came to members and readers.
    pub(crate) delivered: u64,
    /// Records that should have come.
    pub(crate) owed: u64,
    /// Messages stored twice, and records that came twice.
    pub(crate) duplicates: u64,
    /// Seqs missing in the rooms and in the streams.
    pub(crate) gaps: u64,
    /// Messages not in the order of the log, and records that came after a later one.
    pub(crate) out_of_order: u64,
    /// Messages acknowledged, but not stored; none without `--verify`.
    pub(crate) lost: Option<u64>,
    /// Records that differ from what was sent; none without `--verify`.
    pub(crate) mismatched: Option<u64>,
    /// How long the replay took, without reading back.
    pub(crate) seconds: f64,
}

impl Report {
    /// Adds what streams came to.
    pub(crate) fn add_streams(&mut self, totals: Totals) {
        self.delivered += totals.delivered;
        self.resends += totals.resends;
        self.owed += totals.owed;
        self.duplicates += totals.duplicates;
        self.gaps += totals.gaps;
        self.out_of_order += totals.out_of_order;
    }

    /// Adds what reading a room back came to.
    pub(crate) fn add_room(&mut self, findings: Findings) {
        *self.stored.get_or_insert_default() += findings.stored;
        *self.lost.get_or_insert_default() += findings.lost;
        *self.mismatched.get_or_insert_default() += findings.mismatched;
        self.duplicates += findings.duplicates;
        self.gaps += findings.gaps;
        self.out_of_order += findings.out_of_order;
    }

    /// Whether everything came as it should.
    pub(crate) fn is_sound(&self) -> bool {
        self.acked == self.messages
            && self.stored.is_none_or(|stored| stored == self.messages)
            && self.delivered == self.owed
            && [self.duplicates, self.gaps, self.out_of_order].iter().all(|count| *count == 0)
            && [self.lost, self.mismatched].iter().all(|count| count.is_none_or(|count| count == 0))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: Option<u64>, note: &str| {
            let value = value.map_or_else(|| "-".to_owned(), |value| value.to_string());
            writeln!(f, "{name:<13}{value:>12}  {note}")
        };
        row("files", Some(self.files), "")?;
        row("rooms", Some(self.rooms), "")?;
        row("clients", Some(self.clients), "a nick of a room each")?;
        row("messages", Some(self.messages), "")?;
        row("skipped", Some(self.skipped), "lines that are no message, join, leave or rename")?;
        row("acked", Some(self.acked), "messages that the server said are stored")?;
        row("acks_dropped", self.acks_dropped, "by --drop-acks")?;
        row("resends", Some(self.resends), "since no ack came")?;
        row("stored", self.stored, "records read back")?;
        row("delivered", Some(self.delivered), "records that came to members and readers")?;
        row("owed", Some(self.owed), "records that should have come")?;
        row("duplicates", Some(self.duplicates), "")?;
        row("gaps", Some(self.gaps), "")?;
        row("out_of_order", Some(self.out_of_order), "")?;
        row("lost", self.lost, "acknowledged, but not stored")?;
        row("mismatched", self.mismatched, "stored other than sent")?;
        writeln!(
            f,
            "{:<13}{:>12.1}  {:.0} messages and {:.0} deliveries a second",
            "seconds",
            self.seconds,
            rate(self.messages, self.seconds),
            rate(self.delivered, self.seconds)
        )?;
        f.write_str(if self.is_sound() { "sound" } else { "NOT SOUND" })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Report {
        let mut report = Report { files: 2, rooms: 2, clients: 5, messages: 9, acked: 9, ..Report::default() };
        report.add_streams(Totals { delivered: 20, owed: 20, ..Totals::default() });
        report.add_room(Findings { stored: 4, ..Findings::default() });
        report.add_room(Findings { stored: 5, ..Findings::default() });
        report
    }

    #[track_caller]
    fn check(spoil: impl FnOnce(&mut Report), want: bool) {
        let mut report = sound();
        spoil(&mut report);
        assert_eq!(report.is_sound(), want, "{report:?}");
        assert_eq!(report.to_string().ends_with("\nsound"), want);
    }

    #[test]
    fn every_difference_makes_a_report_unsound() {
        check(|_| {}, true);
        check(|report| (report.stored, report.lost, report.mismatched) = (None, None, None), true);
        check(|report| report.acked -= 1, false);
        check(|report| report.stored = Some(8), false);
        check(|report| report.delivered += 1, false);
        check(|report| report.duplicates = 1, false);
        check(|report| report.gaps = 1, false);
        check(|report| report.out_of_order = 1, false);
        check(|report| report.lost = Some(1), false);
        check(|report| report.mismatched = Some(1), false);
    }

    #[test]
    fn the_object_has_the_promised_fields() {
        let json = serde_json::to_string(&sound()).unwrap();
        assert_eq!(
            json,
            "{\"files\":2,\"rooms\":2,\"clients\":5,\"messages\":9,\"skipped\":0,\"acked\":9,\
             \"acks_dropped\":null,\"resends\":0,\"stored\":9,\
             \"delivered\":20,\"owed\":20,\"duplicates\":0,\"gaps\":0,\"out_of_order\":0,\"lost\":0,\"mismatched\":0,\
             \"seconds\":0.0}"
        );
    }
}
