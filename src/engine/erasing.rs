//! Erasing for legal needs: one message, or all that a user said.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use parlor_actors::{fleet::Erasure, port::StoreError};
use parlor_protocol::{Code, Name, RoomNumber, Seq};
use tokio::sync::oneshot;

use super::{Engine, RoomError};
use crate::storage::{Place, Said, SaidIn, Stretch};

/// How many erasures of a room are under way at a time: enough for one sync for many, few against its limit of reads.
const UNDER_WAY_MAX: usize = 16;

/// How often an erasure is asked for while its room is busy, each time behind everything that waits for the store.
const ATTEMPTS_MAX: usize = 1_000;

/// What [`Engine::erase_user`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErasedUser {
    /// Rooms in which the user had said something.
    pub rooms: usize,
    /// Messages and reactions that were made tombstones by this call; not those that were before. An edited message is
    /// one.
    pub records: u64,
    /// Those of them that only memory held.
    pub in_memory: u64,
    /// Those that had gone before their turn came, by lifetime or retention. What was left of them on disk is gone as well.
    pub gone: u64,
    /// How long it took to find them and make them tombstones…
    pub erased_in: Duration,
    /// …and how long it took then to write the store's files anew.
    pub purged_in: Duration,
}

impl Engine {
    /// Erases what was said in a message, and in the edits of it, as the law may demand.
    ///
    /// The message becomes a tombstone, and its seq, sender and time stay; a recall in its sender's name tells the clients.
    /// When this is answered, the text is in none of the store's files: its write-ahead logs are flushed and its tables
    /// around the message written anew, by a thread that holds up neither publishes nor reads. That begins at once, or when
    /// the round under way has ended; all who wait share one. A round for one message takes seconds, and less than five
    /// minutes in a store of ten million messages on a busy machine, so this is answered within ten. A round for
    /// [`erase_user`](Self::erase_user) may take as long as writing the whole store anew, and one that is under way, or waits
    /// as well, is waited for: twice eight minutes there. docs/performance.md has what was measured.
    ///
    /// What this cannot reach: backups and other copies of the files, blocks of deleted files on the device, replies that
    /// quote the message, and clients, which are told and may not obey. A message that is gone already, trimmed, expired or in
    /// a deleted room, cannot be named any more; what may be left of it in the files is reached by
    /// [`erase_user`](Self::erase_user).
    ///
    /// # Errors
    /// If there is no such room or message, or the engine refuses for now. If it was erased and the files could not be
    /// written anew, it says so: erase it again.
    pub async fn erase_message(&self, room: &str, seq: Seq) -> Result<(), RoomError> {
        let erased = self.fleet.erase(Name::parse(room)?, seq).await;
        erased.map_err(|(code, message)| RoomError::Refused { code, message })
    }

    /// Erases all that a user said, in all rooms: every message, the edits of them, every reaction.
    ///
    /// Each becomes a tombstone as [`erase_message`](Self::erase_message) leaves it, and clients are told in the same way;
    /// messages that he reacted to lose those reactions. No index knows what he said, so the whole store is read, a few
    /// milliseconds at a time on a reader's thread; then all files of the log are written anew, once: that takes as long as
    /// copying the store, and reaches what he said that was no record any more, since it had been trimmed, had expired, or lay
    /// in a room that was deleted. In rooms that keep only so many records, the recalls push out older ones. What he says
    /// meanwhile may stay: everything that was acked when this was called is erased. It can be called again after an error
    /// or a crash, and goes on with what is left; once nothing is, it makes sure of the files alone.
    ///
    /// What stays, besides what `erase_message` cannot reach: his name at tombstones, in lists of members and in records of
    /// their changes; how far he has read; for a day 64 bits of a hash of each thing he said lately, by which repeats are
    /// told; parts of a long message that he has not finished; his name among those who reacted where the message outlived
    /// the record of his reaction.
    ///
    /// # Errors
    /// If the name is none, or the engine refuses for now: what was erased by then stays erased. Call it again.
    pub async fn erase_user(&self, user: &str) -> Result<ErasedUser, RoomError> {
        let (user, began) = (Name::parse(user)?, Instant::now());
        // What was acked is in the log now.
        self.settled().await?;
        let in_memory = self.fleet.erase_in_memory(&user).await?;
        let mut report = ErasedUser { records: in_memory, in_memory, ..ErasedUser::default() };
        let mut rooms: BTreeSet<RoomNumber> = BTreeSet::new();
        let mut next = Some(Place::default());
        while let Some(from) = next {
            let said: Said = self.ask(|store, reply| store.said(user.clone(), from, reply)).await?;
            next = said.next;
            for found in said.rooms {
                self.erase_found(&user, &found, &mut report).await?;
                rooms.insert(found.room);
            }
        }
        // Behind what rooms were asked to delete because of this.
        self.settled().await?;
        report.rooms = rooms.len();
        report.erased_in = began.elapsed();
        let purging = Instant::now();
        // All of it: what had been trimmed, had expired or lay in a deleted room is no record any more that could be found,
        // and may still be in a file.
        self.ask(|store, reply| store.purge_all(Stretch::ALL.to_vec(), reply)).await?;
        report.purged_in = purging.elapsed();
        Ok(report)
    }

    /// Makes tombstones of what was found in a room.
    async fn erase_found(&self, user: &Name, found: &SaidIn, report: &mut ErasedUser) -> Result<(), RoomError> {
        let mut left: Vec<Seq> = found.seqs.iter().copied().collect();
        for _ in 0..ATTEMPTS_MAX {
            let mut refused = Vec::new();
            for seqs in left.chunks(UNDER_WAY_MAX) {
                let begin = |seq: &Seq| (*seq, self.fleet.begin_erasure(found.name.clone(), *seq, Some(user.clone())));
                let under_way: Vec<(Seq, Erasure)> = seqs.iter().map(begin).collect();
                for (seq, erasure) in under_way {
                    match erasure.outcome().await {
                        Ok(_) => report.records += 1,
                        Err((Code::TargetGone | Code::UnknownRoom, _)) => report.gone += 1,
                        Err((Code::Busy | Code::RoomUnavailable | Code::OutcomeUnknown, _)) => refused.push(seq),
                        Err((code, message)) => return Err(RoomError::Refused { code, message }),
                    }
                }
            }
            if refused.is_empty() {
                return Ok(());
            }
            left = refused;
            // Whatever the room waits for is in the store's queue as well.
            self.settled().await?;
        }
        Err((Code::Busy, "a room is too busy to erase what the user said there: call it again").into())
    }

    async fn settled(&self) -> Result<(), RoomError> {
        self.ask(|store, reply| store.flush(reply)).await
    }

    /// Asks the store.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&crate::storage::RocksStore, parlor_actors::port::Reply<T>),
    ) -> Result<T, RoomError> {
        let (answer, answered) = oneshot::channel();
        question(&self.store, Box::new(move |outcome| drop(answer.send(outcome))));
        match answered.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(StoreError::Busy)) => Err((Code::Busy, "the store is busy: call it again").into()),
            Ok(Err(error)) => {
                tracing::error!(%error, "what a user said could not be erased");
                Err((Code::StoreUnavailable, "the store could not be read or written anew: call it again").into())
            }
            Err(_) => Err((Code::GoingAway, "the engine is shut down").into()),
        }
    }
}
