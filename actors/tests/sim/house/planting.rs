//! Bugs that the simulation has to find, and what they need to remember.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use parlor_actors::{
    message::{Conn, FromChannel, Returning},
    port::{DeviceKey, Mark},
};
use parlor_protocol::{DeviceTag, RoomNumber, Seq};

use super::House;

/// Bugs that the simulation has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A join begins one record late.
    CursorOffByOne,
    /// A relay hears of a batch twice.
    RepeatedBatch,
    /// A relay does not hear of a batch.
    LostBatch,
    /// A cursor moves on without the page that it moves over.
    LostPage,
    /// Gaps are not told.
    LostGap,
    /// What a device was answered is not found when it joins: a send that comes again is appended again.
    DoubleAppend,
    /// A rebuilt channel does not wait for the appends of the dead one, which go through.
    UnfencedRebuild,
    /// A commit is told when its append is queued.
    AckBeforeCommit,
    /// A session that is taken up goes on where the server had sent to, not where its client stands.
    ResumeFromServerCursor,
    /// A change of members is answered, and its room's channel does not hear of it.
    DeafToMembers,
    /// Relays do not hear who is to be put out.
    NobodyPutOut,
    /// Who is removed where strangers may come is not put out.
    RemovedStay,
    /// A channel that takes strangers up does not hear how far the room was when they came.
    MetForgotten,
    /// Everybody may read what was said before he was added.
    PastShown,
    /// Who follows does not hear that he was added.
    DeafFollower,
    /// A connection whose session goes on over another one is told Replaced.
    ToldReplaced,
    /// What is left of a session has forgotten its rooms.
    RoomsForgotten,
    /// A superseded session does not hand over: it stands beside the one that goes on.
    TwoAtOnce,
    /// Leases of sessions without a connection do not end.
    EndlessLease,
    /// Others see a session leave and enter when it is taken up.
    Flicker,
    /// A channel goes to sleep when the first relay has let it go: what the others sent before is lost.
    LateSenders,
    /// Nobody hears that a room that sleeps is wanted.
    Oversleep,
    /// The channel of a room that is woken is not told of its subscribers.
    SubscribersOverslept,
    /// What waited for a room that slept is forgotten when it is woken.
    WaitersOverslept,
}

/// What planted bugs remember.
#[derive(Default)]
pub struct Planted {
    /// How far devices' connections were in rooms when they ended.
    cursors: BTreeMap<(DeviceTag, RoomNumber), Seq>,
    /// Joins of rooms that sessions had before.
    resuming: BTreeSet<(Conn, u32, RoomNumber)>,
}

impl House {
    /// A session that was taken up asks to be attached again.
    pub(super) fn plant_resumption(&mut self, conn: Conn, request: u32, room: RoomNumber) {
        if self.plant == Some(Plant::ResumeFromServerCursor) {
            self.planted.resuming.insert((conn, request, room));
        }
    }

    /// A connection ends.
    pub(super) fn plant_end(&mut self, conn: Conn, device: &DeviceKey) {
        if self.plant == Some(Plant::ResumeFromServerCursor) {
            for room in (1..=4).map(RoomNumber) {
                if let Some(cursor) = self.arbiters[usize::from(conn.arbiter)].state.on_leave(conn, room) {
                    self.planted.cursors.insert((device.tag, room), cursor);
                }
            }
        }
    }

    /// A channel takes up the subscribers of the one before.
    pub(super) fn plant_returning(&self, devices: &mut [Returning]) {
        if self.plant == Some(Plant::MetForgotten) {
            devices.iter_mut().for_each(|returning| returning.met = Mark::default());
        }
    }

    /// A channel speaks to a relay. What the relay hears besides.
    pub(super) fn plant_news(&mut self, room: RoomNumber, news: &mut FromChannel) -> Option<FromChannel> {
        match (news, self.plant?) {
            (FromChannel::Attach(attach), Plant::ResumeFromServerCursor)
                if self.planted.resuming.remove(&(attach.conn, attach.request, room)) =>
            {
                let cursor = self.planted.cursors.get(&(attach.device.tag, room)).copied().unwrap_or_default();
                attach.cursor = attach.cursor.max(cursor.min(attach.tail));
            }
            (FromChannel::Attach(attach), Plant::CursorOffByOne) if attach.cursor < attach.tail => attach.cursor += 1,
            (FromChannel::Committed { batch: Some(batch), durability, .. }, Plant::RepeatedBatch)
                if self.chance.one_in(20) =>
            {
                let (batch, durability) = (Some(batch.clone()), *durability);
                return Some(FromChannel::Committed { batch, durability, stored: Vec::new() });
            }
            (FromChannel::Detach { users, .. }, Plant::NobodyPutOut) => *users = [].into(),
            (FromChannel::Detach { users, .. }, Plant::RemovedStay) => {
                *users = users.iter().filter(|user| !self.club.is_stranger(user)).cloned().collect();
            }
            (FromChannel::Committed { batch, .. }, Plant::LostBatch) if self.chance.one_in(20) => *batch = None,
            (FromChannel::Pulled { page: Some((_, frames)), .. }, Plant::LostPage) if self.chance.one_in(5) => {
                *frames = Bytes::new();
            }
            _ => {}
        }
        None
    }
}
