//! Compares a room that was read back with what was sent to it and acknowledged. Pure.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use parlor_protocol::{DeviceTag, Name, Nonce, Seq};

use crate::cli::faults::Faults;

/// A message as it was sent, in the order of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent<'a> {
    /// Who sent it.
    pub(crate) sender: &'a Name,
    /// The tag of the sender's device.
    pub(crate) tag: DeviceTag,
    /// What was said.
    pub(crate) payload: &'a [u8],
    /// Its seq and nonce by its ack, if there was one.
    pub(crate) acked: Option<(Seq, Nonce)>,
}

/// A record as it was read back.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Its number.
    pub(crate) seq: Seq,
    /// Who said it.
    pub(crate) sender: Name,
    /// On which device.
    pub(crate) tag: DeviceTag,
    /// The device's nonce.
    pub(crate) nonce: Nonce,
    /// What was said.
    pub(crate) payload: Bytes,
}

/// A room, read back behind `base`, its tail before the first message.
#[derive(Debug)]
pub(crate) struct ReadBack {
    /// Nothing up to here counts.
    pub(crate) base: Seq,
    /// The room's newest seq.
    pub(crate) tail: Seq,
    /// In the order of the pages.
    pub(crate) records: Vec<Record>,
    /// The seqs that have expired.
    pub(crate) expired: HashSet<Seq>,
}

/// What the comparison came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Records in the room.
    pub(crate) stored: u64,
    /// Records that repeat another: by seq, by sender and nonce, or as a second copy of a message.
    pub(crate) duplicates: u64,
    /// Seqs of the room that have no record.
    pub(crate) gaps: u64,
    /// Messages that stand before an earlier one of the same sender.
    pub(crate) out_of_order: u64,
    /// Messages that were acknowledged and are not there.
    pub(crate) lost: u64,
    /// Messages that have expired since they were acknowledged.
    pub(crate) expired: u64,
    /// Records that differ from what was sent under their seq, or that were never sent.
    pub(crate) mismatched: u64,
}

/// Compares. `origin` names the message of a number for `faults`.
pub(crate) fn compare(
    sent: &[Sent<'_>],
    back: &ReadBack,
    origin: impl Fn(usize) -> String,
    faults: &mut Faults,
) -> Findings {
    let mut findings = Findings { stored: back.records.len() as u64, ..Findings::default() };
    let stored = index(back, &mut findings, faults);
    let mut claimed: HashSet<Seq> = HashSet::new();
    let mut newest: HashMap<(&Name, DeviceTag), Seq> = HashMap::new();
    // By sender and text: how many of the messages no ack leads to.
    let mut copies: HashMap<(&Name, DeviceTag, &[u8]), u64> = HashMap::new();
    for (number, message) in sent.iter().enumerate() {
        let unfound = copies.entry((message.sender, message.tag, message.payload)).or_default();
        let Some((seq, nonce)) = message.acked else {
            *unfound += 1;
            continue;
        };
        let before = newest.entry((message.sender, message.tag)).or_insert(0);
        if seq < *before {
            findings.out_of_order += 1;
            faults.note(|| {
                format!("{}: stored as {seq}, but an earlier line of the same nick as {before}", origin(number))
            });
        }
        *before = seq.max(*before);
        if back.expired.contains(&seq) && !stored.contains_key(&seq) && claimed.insert(seq) {
            findings.expired += 1;
            continue;
        }
        let Some(record) = stored.get(&seq).filter(|_| claimed.insert(seq)) else {
            *unfound += 1;
            findings.lost += 1;
            faults.note(|| format!("{}: acknowledged as {seq}, but not there", origin(number)));
            continue;
        };
        if !(same(message, record) && record.nonce == nonce) {
            findings.mismatched += 1;
            faults.note(|| format!("{}: {seq} is not what was sent: {record:?}", origin(number)));
        }
    }
    strays(back, &claimed, copies, &mut findings, faults);
    findings
}

/// The records by seq; counts the seqs that are missing or twice, and the nonces that are twice.
fn index<'a>(back: &'a ReadBack, findings: &mut Findings, faults: &mut Faults) -> HashMap<Seq, &'a Record> {
    let mut by_seq = HashMap::with_capacity(back.records.len());
    let mut by_nonce = HashMap::with_capacity(back.records.len());
    for record in &back.records {
        if by_seq.insert(record.seq, record).is_some() {
            findings.duplicates += 1;
            faults.note(|| format!("{} was read twice", record.seq));
        } else if let Some(other) = by_nonce.insert((&record.sender, record.tag, record.nonce), record.seq) {
            findings.duplicates += 1;
            faults.note(|| format!("{} and {other} are the same send of {}", record.seq, record.sender));
        }
    }
    let top = back.records.iter().map(|record| record.seq).fold(back.tail, Seq::max);
    for seq in (back.base + 1..=top).filter(|seq| !by_seq.contains_key(seq) && !back.expired.contains(seq)) {
        findings.gaps += 1;
        faults.note(|| format!("there is no {seq}"));
    }
    by_seq
}

/// The records that no ack names: a message whose ack was never seen is no fault of the store (it shows in the number of
/// acks), nor is one that stands elsewhere than its ack said one more (it is lost); a second copy is, and so is what
/// nobody sent.
fn strays<'a>(
    back: &'a ReadBack,
    claimed: &HashSet<Seq>,
    mut copies: HashMap<(&'a Name, DeviceTag, &'a [u8]), u64>,
    findings: &mut Findings,
    faults: &mut Faults,
) {
    // What `index` has counted as read twice or as the same send is no stray on top of that.
    let mut known: HashSet<_> = back
        .records
        .iter()
        .filter(|record| claimed.contains(&record.seq))
        .map(|record| (&record.sender, record.tag, record.nonce))
        .collect();
    for record in back.records.iter().filter(|record| !claimed.contains(&record.seq)) {
        if !known.insert((&record.sender, record.tag, record.nonce)) {
            continue;
        }
        match copies.get_mut(&(&record.sender, record.tag, &*record.payload)) {
            Some(unfound) if *unfound > 0 => *unfound -= 1,
            Some(_) => {
                findings.duplicates += 1;
                faults.note(|| format!("{} is a second copy of a message of {}", record.seq, record.sender));
            }
            None => {
                findings.mismatched += 1;
                faults.note(|| format!("{} was never sent: {record:?}", record.seq));
            }
        }
    }
}

fn same(message: &Sent<'_>, record: &Record) -> bool {
    *message.sender == record.sender && message.tag == record.tag && *message.payload == *record.payload
}

#[cfg(test)]
mod tests;
