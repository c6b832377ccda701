//! A [`MemStore`] as actors see it: everything they ask is queued.

use std::sync::Arc;

use parlor_protocol::{Name, RoomNumber, Seq};

use super::{
    Entry, Job, MemStore,
    writing::{last, tell},
};
use crate::{
    members::{Changed, Look, Member, Refusal, RoomChange, Seen},
    port::{
        Answer, Append, Budget, Commit, CommitNumber, DeviceKey, Load, Loaded, Marks, Read, Records, Reply, RoomMarks,
        SaveMarks, Store, Sweep, Swept, Target, Trim, Trimmed,
    },
};

impl Store for MemStore {
    fn load(&self, load: Load, reply: Reply<Loaded>) {
        let mut inside = self.lock();
        let entry = Entry::Load(load, reply);
        if inside.faults.unfenced {
            inside.queue.push_front(entry)
        } else {
            inside.queue.push_back(entry)
        }
        self.work.notify_one();
    }

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn append(&self, appends: Vec<Append>) {
        appends.into_iter().for_each(|append| self.append_one(append));
    }

    fn read(&self, read: Read, reply: Reply<Records>) {
        self.lock().reads.push_back(Job::Read(read, reply));
        self.work.notify_one();
    }

    fn save_marks(&self, save: SaveMarks, reply: Reply<()>) {
        self.lock().queue.push_back(Entry::Marks(save, reply));
        self.work.notify_one();
    }

    fn marks(&self, user: Name, rooms: Vec<RoomNumber>, reply: Reply<Vec<Marks>>) {
        self.lock().reads.push_back(Job::Marks(user, rooms, reply));
        self.work.notify_one();
    }

    fn room_marks(&self, room: RoomNumber, users_max: usize, reply: Reply<RoomMarks>) {
        self.lock().reads.push_back(Job::RoomMarks(room, users_max, reply));
        self.work.notify_one();
    }

    fn target(&self, room: RoomNumber, seq: Seq, reply: Reply<Option<Target>>) {
        self.lock().reads.push_back(Job::Target(room, seq, reply));
        self.work.notify_one();
    }

    fn purge(&self, _: RoomNumber, _: Seq, _: Seq, reply: Reply<()>) {
        self.lock().reads.push_back(Job::Done(Box::new(move || reply(Ok(())))));
        self.work.notify_one();
    }

    fn answers(&self, room: RoomNumber, device: DeviceKey, reply: Reply<Vec<(u8, Answer)>>) {
        self.lock().reads.push_back(Job::Answers(room, device, reply));
        self.work.notify_one();
    }

    fn sweep(&self, sweep: Sweep, reply: Reply<Swept>) {
        self.lock().queue.push_back(Entry::Sweep(sweep, reply));
        self.work.notify_one();
    }

    fn trim(&self, trim: Trim, reply: Reply<Trimmed>) {
        self.lock().queue.push_back(Entry::Trim(trim, reply));
    }

    fn change(&self, change: RoomChange, reply: Reply<Result<Changed, Refusal>>) {
        self.lock().queue.push_back(Entry::Change(change, reply));
        self.work.notify_one();
    }

    fn member(&self, room: RoomNumber, user: Name, reply: Reply<Option<Member>>) {
        self.lock().reads.push_back(Job::Member(room, user, reply));
        self.work.notify_one();
    }

    fn look(&self, look: Look, reply: Reply<Result<Seen, Refusal>>) {
        self.lock().reads.push_back(Job::Look(look, reply));
        self.work.notify_one();
    }

    fn settle(&self, reply: Reply<()>) {
        self.lock().queue.push_back(Entry::Settle(reply));
        self.work.notify_one();
    }
}

impl MemStore {
    fn append_one(&self, append: Append) {
        let mut inside = self.lock();
        let (commits, room, generation, upto) = (append.commits.clone(), append.room, append.generation, last(&append));
        let claimed = if std::mem::take(&mut inside.faults.overstate_next_append) {
            Some(upto + 1)
        } else {
            let early = inside.faults.tells_early.then_some(upto);
            inside.queue.push_back(Entry::Append(append));
            early
        };
        drop(inside);
        if let Some(upto) = claimed {
            tell(commits, room, generation, Ok(Commit { number: CommitNumber(0), upto }));
        }
        self.work.notify_one();
    }
}
