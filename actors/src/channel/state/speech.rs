//! What a channel is told, and what it wants done.

use std::sync::Arc;

use bytes::Bytes;
use parlor_protocol::{Name, Seq};

use super::{Ask, Erase, EraseInMemory, HostReply, Rest, Sleep, Standing};
use crate::{
    channel::{gathering, history::NewRead},
    members::{Changed, Member},
    message::{Conn, Fetch, FetchReaders, FromChannel, Join, MarkRead, Publish, Returning, Signal},
    port::{
        Answer, AppendRecord, DeviceKey, Marks, Place, Records, Rewrite, RoomMarks, SaveMarks, StoreError, Target,
        Trim, Trimmed,
    },
};

/// What a channel is told.
#[derive(Debug)]
pub enum Input {
    /// A session wants in.
    Join(Join),
    /// A session says something.
    Publish(Publish),
    /// A session reads the past.
    Fetch(Fetch),
    /// A session's user has read.
    Mark(MarkRead),
    /// A session asks who has read.
    FetchReaders(FetchReaders),
    /// The host asks how far a user is.
    Ask(Ask),
    /// A session says something that is not kept.
    Signal(Signal),
    /// A user's device has received everything up to here.
    Delivered {
        /// Whose.
        user: Name,
        /// Up to here.
        seq: Seq,
    },
    /// The store's marks of a user.
    Marks {
        /// Whose.
        user: Name,
        /// How far he is.
        marks: Result<Marks, StoreError>,
    },
    /// The store's marks of a room, for a request.
    RoomMarks {
        /// Which request.
        fetch: FetchReaders,
        /// How far users are.
        found: Result<RoomMarks, StoreError>,
    },
    /// The time that [`Effect::SaveMarksIn`] named has come.
    SaveMarks,
    /// What became of [`Effect::SaveMarks`].
    MarksSaved(Result<(), StoreError>),
    /// A subscriber with this cursor can take more.
    Pull {
        /// Which.
        conn: Conn,
        /// Its cursor.
        after: Seq,
    },
    /// The host erases a message.
    Erase(Erase),
    /// The host erases all that a user said, where no store has it.
    EraseInMemory(EraseInMemory),
    /// A subscriber is gone.
    Detached {
        /// From which arbiter.
        arbiter: u16,
        /// Its device.
        device: DeviceKey,
    },
    /// An arbiter's subscribers of the channel before this one.
    Adopt {
        /// Which arbiter.
        arbiter: u16,
        /// One entry for each subscriber.
        devices: Vec<Returning>,
    },
    /// The mailbox is empty.
    EndOfTurn,
    /// The store has everything up to here.
    Committed(Seq),
    /// The store has nothing more and takes nothing more.
    Failed(StoreError),
    /// The store's answers of a device.
    Answers {
        /// Which device.
        device: DeviceKey,
        /// What it was answered, and in which slots it lies.
        answers: Result<Vec<(u8, Answer)>, StoreError>,
    },
    /// What the store says of a device's user.
    Rights {
        /// Which device.
        device: DeviceKey,
        /// What its user is here.
        member: Result<Option<Member>, StoreError>,
    },
    /// The room or its members changed; the answer is [`Effect::Told`].
    Changed {
        /// The change's number.
        id: u64,
        /// What changed.
        change: Arc<Changed>,
    },
    /// The room was deleted.
    End,
    /// A read came back.
    Read {
        /// Which.
        id: u64,
        /// What it found.
        records: Result<Records, StoreError>,
    },
    /// A sweep of the store took everything below this seq.
    Swept {
        /// The oldest seq that the room may still have.
        first: Seq,
        /// The count of the newest record that is gone.
        gone_count: u64,
    },
    /// About the room's sleep.
    Sleep(Sleep),
    /// The store's answer to [`Effect::Trim`].
    Trimmed(Result<Trimmed, StoreError>),
    /// About who is in the room.
    Presence(gathering::Input),
    /// A record that is to be changed came back.
    Target {
        /// Which read.
        id: u64,
        /// The record, if it is there.
        target: Result<Option<Target>, StoreError>,
    },
}

/// What a channel wants done.
#[derive(Debug)]
pub enum Effect {
    /// Tell the relay of an arbiter.
    Relay {
        /// Which arbiter.
        arbiter: u16,
        /// What.
        news: FromChannel,
    },
    /// Append to the store.
    Append(Turn),
    /// Read from the store.
    Read(NewRead),
    /// Read a record to change it.
    ReadTarget {
        /// Under which number its answer is awaited.
        id: u64,
        /// Which record.
        seq: Seq,
    },
    /// Load a device's answers.
    LoadAnswers(DeviceKey),
    /// Load a user's marks.
    LoadMarks(Name),
    /// Load the marks of a room that knows at most so many people, for a request.
    LoadRoomMarks(FetchReaders, usize),
    /// Give it [`Input::SaveMarks`] after so many milliseconds. What else waits for the writer is tried again then, too.
    SaveMarksIn(u64),
    /// Have the store save marks.
    SaveMarks(SaveMarks),
    /// Tell a user's sessions in the room, except one.
    TellUser {
        /// Whom.
        user: Name,
        /// Which session not.
        except: Option<Conn>,
        /// What: a frame.
        frame: Bytes,
    },
    /// Tell the host.
    TellHost(HostReply, Result<Standing, StoreError>),
    /// About who is in the room.
    Presence(gathering::Effect),
    /// Delete the room's oldest records.
    Trim(Trim),
    /// Load what a device's user is in the room.
    LoadRights(DeviceKey),
    /// A change counts from here on.
    Told(u64),
    /// End the channel: its successor goes on from the store.
    Stop,
    /// Give it [`Input::EndOfTurn`] when its mailbox is empty.
    EndTurn,
    /// Tell the supervisor about the room's sleep.
    Sleep(Rest),
}

/// Records accepted in one turn: consecutive, and one entry for the store.
#[derive(Debug)]
pub struct Turn {
    /// The first one's seq.
    pub first: Seq,
    /// Their frames.
    pub frames: Bytes,
    /// One entry for each.
    pub records: Vec<AppendRecord>,
    /// The records that the changes among them rewrite.
    pub rewrites: Vec<Rewrite>,
    /// Their places in the writer's queue.
    pub place: Place,
}
