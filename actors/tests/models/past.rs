//! What may be said of a room's past, looked up in a plain list; and pages, taken apart.

use bytes::Bytes;
use parlor_actors::{port::RoomOptions, testkit::with_deliver};
use parlor_protocol::{
    Header, Kind, Seq,
    frame::HEADER_BYTES,
    message::{Direction, GapReason, Page},
};

/// Everything that was ever committed, and how little of it any rule that was in force has left.
#[derive(Clone, Default)]
pub struct Past {
    /// One for each seq, from 1 on.
    pub records: Vec<Record>,
    /// Nothing below is to be shown: a rule on the number of records is or was against it.
    pub kept_from: Seq,
    /// Nothing below need be shown: a rule on bytes is or was against it as well.
    pub dropped_below: Seq,
}

#[derive(Clone, Debug)]
pub struct Record {
    pub frame: Bytes,
    pub expires: u64,
}

impl Past {
    pub fn tail(&self) -> Seq {
        self.records.len() as Seq
    }

    /// A record is committed, in a room with these options.
    pub fn commit(&mut self, frame: Bytes, options: &RoomOptions) {
        let expires = with_deliver(&frame, |deliver| deliver.expires);
        self.records.push(Record { frame, expires });
        self.keep(options);
    }

    /// The room is to keep only what its options say.
    pub fn keep(&mut self, options: &RoomOptions) {
        let records_max = if options.records_max == 0 { u64::MAX } else { options.records_max };
        self.kept_from = self.kept_from.max((self.tail() + 1).saturating_sub(records_max).max(1));
        let (mut bytes, mut first) = (0, self.tail() + 1);
        // The newest is always kept.
        while first > 1 && (first > self.tail() || options.bytes_max == 0 || bytes <= options.bytes_max) {
            first -= 1;
            bytes += self.size(first);
        }
        let by_bytes = if options.bytes_max > 0 && bytes > options.bytes_max { first + 1 } else { 1 };
        self.dropped_below = self.dropped_below.max(self.kept_from).max(by_bytes.min(self.tail().max(1)));
    }

    /// What is behind this seq is lost, if anything is, and with it what had pushed out older records.
    pub fn lose_behind(&mut self, tail: Seq) {
        if self.tail() > tail {
            self.records.truncate(tail as usize);
            self.kept_from = 1;
        }
    }

    pub fn size(&self, seq: Seq) -> u64 {
        self.records[seq as usize - 1].frame.len() as u64
    }

    /// Whether a record may not be read at this time.
    pub fn is_expired(&self, seq: Seq, now: u64) -> bool {
        let expires = self.records[seq as usize - 1].expires;
        expires != 0 && expires <= now
    }

    /// Whether a record has to be unreadable.
    pub fn is_gone(&self, seq: Seq, now: u64) -> bool {
        seq < self.kept_from || self.is_expired(seq, now)
    }

    /// Whether a record may have been deleted.
    pub fn is_dropped(&self, seq: Seq, now: u64) -> bool {
        seq < self.dropped_below || self.is_expired(seq, now)
    }

    /// Whether a gap says the truth about a seq.
    pub fn is_true(&self, seq: Seq, why: GapReason, since: Seq, now: u64) -> bool {
        match why {
            GapReason::NOT_YOURS => seq < since,
            GapReason::EXPIRED => self.is_expired(seq, now),
            GapReason::TRIMMED => self.is_dropped(seq, now),
            _ => false,
        }
    }
}

/// What a page or a stream says of a seq.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Shown(Bytes),
    Gap(GapReason),
}

/// A page, taken apart: what it says of each seq, lowest first.
#[derive(Debug)]
pub struct Told {
    pub all: Vec<(Seq, Said)>,
    pub tail: Seq,
    pub next: Option<Seq>,
    pub bytes: usize,
    pub shown: usize,
}

impl Told {
    /// Takes a `Page` frame apart; its seqs must follow one another.
    pub fn of(frame: &Bytes) -> Self {
        assert_eq!(Header::from_bytes(frame.first_chunk().unwrap()).kind, Kind::Page as u16);
        let page: Page<'_> = parlor_protocol::decode(&frame[HEADER_BYTES..]).unwrap();
        let mut all: Vec<(Seq, Said)> = Vec::new();
        for gap in &page.gaps.0 {
            all.extend((gap.from..=gap.to).map(|seq| (seq, Said::Gap(gap.why))));
        }
        let records = frames(page.records);
        let shown = records.len();
        for frame in records {
            let seq = with_deliver(&frame, |deliver| deliver.seq);
            all.push((seq, Said::Shown(frame)));
        }
        all.sort_by_key(|(seq, _)| *seq);
        assert!(all.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "a page has no holes and says nothing twice");
        Self { all, tail: page.tail, next: page.next, bytes: page.records.len(), shown }
    }

    pub fn seqs(&self) -> Option<(Seq, Seq)> {
        Some((self.all.first()?.0, self.all.last()?.0))
    }

    /// A page goes on where it ends, and says so; the end of the range is its end.
    pub fn check_next(&self, direction: Direction) {
        match (self.seqs(), direction) {
            (None, _) => assert_eq!(self.next, None, "an empty page is the last"),
            (Some((_, high)), Direction::Forward) => {
                assert_eq!(self.next, (high < self.tail).then_some(high + 1), "{self:?}");
            }
            (Some((low, _)), Direction::Backward) => {
                assert!(self.next.is_none_or(|next| next + 1 == low), "{self:?}");
            }
        }
    }
}

/// Frames that lie one behind the other.
pub fn frames(bytes: &[u8]) -> Vec<Bytes> {
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut all = Vec::new();
    while let Some(header) = rest.first_chunk() {
        let size = HEADER_BYTES + Header::from_bytes(header).len as usize;
        all.push(rest.split_to(size));
    }
    all
}
