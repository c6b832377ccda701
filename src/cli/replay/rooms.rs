//! What a replay asks of its rooms before and after: the tail at the start, and everything behind it at the end.

use std::collections::HashSet;

use anyhow::{Context as _, ensure};
use parlor::client::Room;
use parlor_protocol::{
    Name, Seq,
    message::{Direction, GapReason, JoinFrom},
};

use super::{
    compare::{ReadBack, Record},
    member::Part,
};

/// As many records as a server gives at once.
const PAGE_RECORDS: u32 = 200;

/// The tails of `rooms`, by a client that comes and goes.
pub(crate) async fn tails(scout: &Part, rooms: impl Iterator<Item = &Name>) -> anyhow::Result<Vec<Seq>> {
    let client = scout.connect_first().await?;
    let mut tails = vec![];
    for name in rooms {
        let (room, _events) = client.join(name, JoinFrom::Tail).await.with_context(|| format!("cannot join {name}"))?;
        tails.push(room.joined().tail);
        room.leave().await.with_context(|| format!("cannot leave {name}"))?;
    }
    client.close().await;
    Ok(tails)
}

/// Reads `verifier.room` back behind `base`, by a client of its own.
pub(crate) async fn read_back(verifier: &Part, base: Seq) -> anyhow::Result<ReadBack> {
    let client = verifier.connect().await?;
    let (room, _events) = client.join(&verifier.room, JoinFrom::Tail).await.context("cannot join")?;
    let back = pages(&room, base).await;
    client.close().await;
    back
}

async fn pages(room: &Room, base: Seq) -> anyhow::Result<ReadBack> {
    let mut back = ReadBack { base, tail: base, records: vec![], expired: HashSet::new() };
    let mut start = Some(base + 1);
    while let Some(from) = start {
        let page = room
            .fetch(Some(from), Direction::Forward, PAGE_RECORDS)
            .await
            .with_context(|| format!("cannot read from {from} on"))?;
        back.tail = back.tail.max(page.tail);
        let expired = page.gaps.iter().filter(|gap| gap.why == GapReason::EXPIRED);
        back.expired.extend(expired.flat_map(|gap| gap.from.max(base + 1)..=gap.to));
        back.records.extend(page.messages.into_iter().map(|message| Record {
            seq: message.seq,
            sender: message.sender,
            tag: message.device_tag,
            nonce: message.nonce,
            payload: message.payload,
        }));
        ensure!(page.next.is_none_or(|next| next > from), "the page from {from} on says that it goes on there");
        start = page.next;
    }
    Ok(back)
}
