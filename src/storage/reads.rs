//! What the store is asked to read, counted by kind: what a join, a storm of reconnects or a page costs it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::reader::Question;

/// How often the store has read something since it was opened, by what was asked for. Publishing adds to none of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreReads {
    /// Rooms that were loaded: their options, and where they stand.
    pub loads: u64,
    /// Stretches of records: for clients that are behind, for pages, for what a room keeps in memory, and for the count at
    /// one record.
    pub pages: u64,
    /// Single records to be changed.
    pub targets: u64,
    /// What one device was answered in one room.
    pub answers: u64,
    /// What one user may do in one room.
    pub rights: u64,
    /// How far one user is in his rooms.
    pub marks: u64,
    /// How far all users of one room are.
    pub room_marks: u64,
    /// Questions about rooms and members.
    pub looks: u64,
    /// Searches through all rooms for what one user said, a piece each.
    pub searches: u64,
}

impl StoreReads {
    /// What was read since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            loads: self.loads - earlier.loads,
            pages: self.pages - earlier.pages,
            targets: self.targets - earlier.targets,
            answers: self.answers - earlier.answers,
            rights: self.rights - earlier.rights,
            marks: self.marks - earlier.marks,
            room_marks: self.room_marks - earlier.room_marks,
            looks: self.looks - earlier.looks,
            searches: self.searches - earlier.searches,
        }
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { loads, pages, targets, answers, rights, marks, room_marks, looks, searches } = self;
        loads + pages + targets + answers + rights + marks + room_marks + looks + searches
    }
}

/// The same, as it is counted: by the threads that read, which touch nothing else of it.
#[derive(Debug, Default)]
pub(super) struct Counts {
    loads: AtomicU64,
    pages: AtomicU64,
    targets: AtomicU64,
    answers: AtomicU64,
    rights: AtomicU64,
    marks: AtomicU64,
    room_marks: AtomicU64,
    looks: AtomicU64,
    searches: AtomicU64,
}

impl Counts {
    pub(super) fn load(&self) {
        self.loads.fetch_add(1, Relaxed);
    }

    pub(super) fn question(&self, question: &Question) {
        let count = match question {
            Question::Records(..) => &self.pages,
            Question::Target(..) => &self.targets,
            Question::Answers(..) => &self.answers,
            Question::Member(..) => &self.rights,
            Question::Marks(..) => &self.marks,
            Question::RoomMarks(..) => &self.room_marks,
            Question::Look(..) => &self.looks,
            Question::Said(..) => &self.searches,
            // It rewrites tables, and brings nobody anything.
            Question::Compact(_) => return,
        };
        count.fetch_add(1, Relaxed);
    }

    pub(super) fn so_far(&self) -> StoreReads {
        StoreReads {
            loads: self.loads.load(Relaxed),
            pages: self.pages.load(Relaxed),
            targets: self.targets.load(Relaxed),
            answers: self.answers.load(Relaxed),
            rights: self.rights.load(Relaxed),
            marks: self.marks.load(Relaxed),
            room_marks: self.room_marks.load(Relaxed),
            looks: self.looks.load(Relaxed),
            searches: self.searches.load(Relaxed),
        }
    }
}
