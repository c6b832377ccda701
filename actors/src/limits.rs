//! Every limit of the actors, in one place, with its unit in its name. All are configuration; the defaults are here.

use std::sync::Arc;

use crate::port::Budget;

/// What a queue, a cache or a table may hold. Beyond a limit stands an answer or a slow-down, never memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest payload of a message.
    pub payload_bytes_max: u32,
    /// The longest payload that goes up in parts.
    pub text_bytes_max: u32,
    /// What parts of unfinished long messages may take, over all sessions.
    pub uploads_bytes_max: usize,
    /// How long parts are kept of which no more come.
    pub upload_ms: u64,
    /// The most rooms one session may join.
    pub rooms_per_session_max: u32,
    /// Sessions that are kept without a connection until their leases end…
    pub sessions_away_max: usize,
    /// …and those of one user among them.
    pub sessions_away_per_user_max: usize,
    /// The most requests of one connection that may wait for an answer; beyond them its socket is not read.
    pub unanswered_requests_max: u32,
    /// What the engine may hold for one connection that does not read; beyond it the connection's rooms lag. Of what else its
    /// client did not ask for it holds as much again, beyond which the connection is closed.
    pub outbound_bytes_max: usize,
    /// Once no more than this waits for the connection, lagging rooms are caught up, and it is told the newest of each room of
    /// how far its user has read elsewhere.
    pub outbound_low_bytes: usize,
    /// The newest records of a room that are kept in memory…
    pub ring_records_max: usize,
    /// …and their frames, whichever is reached first.
    pub ring_bytes_max: usize,
    /// What the rings of all rooms may hold together: beyond their part of it the oldest records of each are read from the
    /// store instead, and of a `memory` room's are gone. Their buffers may be twice as large.
    pub rings_bytes_max: usize,
    /// The usual page of history.
    pub page_records: u32,
    /// The most records of a page.
    pub page_records_max: u32,
    /// The most bytes of records of a page; one record always fits.
    pub page_bytes_max: u32,
    /// Answers remembered for each (room, sender, device).
    pub answers_per_device_max: usize,
    /// Devices of a room that are remembered after they left, so that those that come back cost the store nothing; a
    /// `memory` room has no other memory of them.
    pub absent_devices_per_room_max: usize,
    /// Devices that are remembered after they left, over all rooms, and users of whom it is remembered how far they are.
    pub absent_max: usize,
    /// Users with cursors in a room that tells who has read.
    pub readers_per_room_max: usize,
    /// Signals that one session may send in a second; 0 for none at all.
    pub signals_per_second_max: u32,
    /// Signals that one session may send at once after a rest, at least 1.
    pub signals_burst_max: u32,
    /// Whether a session may send signals to a user, and not only to rooms.
    pub signals_to_users: bool,
    /// A connection for which more than this waits gets no signals until it drains.
    pub signals_outbound_bytes_max: usize,
    /// Signals that wait for a connection until then; the oldest make room.
    pub signals_waiting_max: usize,
    /// Whether clients are told who is online.
    pub presence: bool,
    /// Users that one session may watch…
    pub presence_users_per_session_max: usize,
    /// …and all sessions together.
    pub presence_watches_max: usize,
    /// How long changes of presence are gathered before they are told.
    pub presence_window_ms: u64,
    /// A connection for which more than this waits is told of presence when it has drained.
    pub presence_outbound_bytes_max: usize,
    /// A room with more members, or with more users present, tells how many they are and not who.
    pub presence_room_named_max: u32,
    /// Changes of presence that wait for the host; the oldest make room.
    pub presence_changes_waiting_max: usize,
    /// Cold reads that one room may have under way.
    pub reads_per_room_max: usize,
    /// Requests of one room that may wait for its newest records to be read once.
    pub refill_waiters_per_room_max: usize,
    /// Publishes of one room that may wait for a record that one of them changes to be read…
    pub parked_per_room_max: usize,
    /// …and those of one device among them.
    pub parked_per_device_max: usize,
    /// How long after a message its sender may edit it.
    pub edit_window_ms: u64,
    /// How long after a message its sender may recall it.
    pub recall_window_ms: u64,
    /// Reactions of one message, over all users…
    pub reactions_per_record_max: usize,
    /// …and the bytes in which a room keeps who has them.
    pub reaction_notes_bytes_max: usize,
    /// Rooms that may be loaded at a time.
    pub rooms_loaded_max: usize,
    /// People that a room may know, the banned among them.
    pub members_per_room_max: u64,
    /// Requests that may wait for one room to be loaded.
    pub waiters_per_room_max: usize,
    /// Records that may wait for the store's writer.
    pub writer_records_max: usize,
    /// Bytes of records that may wait for the store's writer.
    pub writer_bytes_max: usize,
    /// Connections that one arbiter visits in one turn.
    pub connections_per_turn_max: usize,
    /// Users whose send rate is kept at a time: those who have spoken in the last few seconds.
    pub rated_users_max: usize,
    /// How long later sends of a device are held back after one of them was refused for now.
    pub hold_back_ms: u64,
    /// How long a connection may leave what waits for it unread before it is closed.
    pub slow_reader_ms: u64,
    /// How long a closed connection may read nothing of its last frames before it is cut off. While it reads, it is not.
    pub close_linger_ms: u64,
    /// A room that nobody touches for so long is put to sleep; 0 for never.
    pub room_idle_ms: u64,
    /// How long a room that keeps failing rests before it is tried again, or a device whose sessions do; twice as long each
    /// time, at most 32 times.
    pub rest_ms: u64,
    /// What failed more often than this within `restart_window_ms` rests.
    pub restarts_max: u32,
    /// The window in which failures are counted.
    pub restart_window_ms: u64,
    /// Devices whose sessions failed and are remembered.
    pub failing_devices_max: usize,
    /// How often the store is asked to delete what has expired.
    pub sweep_interval_ms: u64,
    /// How long it is left alone between two steps of a sweep that has more to do.
    pub sweep_pause_ms: u64,
    /// Records that one step of a sweep looks at.
    pub sweep_records_max: u32,
    /// A device's answers that are older than this may be forgotten.
    pub dedupe_horizon_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes_max: 1_440,
            text_bytes_max: 64 << 10,
            uploads_bytes_max: 64 << 20,
            upload_ms: 30_000,
            rooms_per_session_max: 1_000,
            sessions_away_max: 100_000,
            sessions_away_per_user_max: 16,
            unanswered_requests_max: 64,
            outbound_bytes_max: 1 << 20,
            outbound_low_bytes: 64 << 10,
            ring_records_max: 1_000,
            ring_bytes_max: 1 << 20,
            rings_bytes_max: 256 << 20,
            page_records: 30,
            page_records_max: 200,
            page_bytes_max: 256 << 10,
            answers_per_device_max: 128,
            absent_devices_per_room_max: 4_096,
            absent_max: 1 << 18,
            readers_per_room_max: 1_000,
            signals_per_second_max: 20,
            signals_burst_max: 40,
            signals_to_users: true,
            signals_outbound_bytes_max: 16 << 10,
            signals_waiting_max: 64,
            presence: true,
            presence_users_per_session_max: 1_000,
            presence_watches_max: 4 << 20,
            presence_window_ms: 1_000,
            presence_outbound_bytes_max: 16 << 10,
            presence_room_named_max: 1_000,
            presence_changes_waiting_max: 4_096,
            reads_per_room_max: 64,
            refill_waiters_per_room_max: 65_536,
            parked_per_room_max: 1_024,
            parked_per_device_max: 64,
            edit_window_ms: 24 * 60 * 60 * 1_000,
            recall_window_ms: 2 * 60 * 1_000,
            reactions_per_record_max: 1_000,
            reaction_notes_bytes_max: 16 << 10,
            rooms_loaded_max: 1_000_000,
            members_per_room_max: 1_000_000,
            waiters_per_room_max: 65_536,
            writer_records_max: 32_768,
            writer_bytes_max: 64 << 20,
            connections_per_turn_max: 1_024,
            rated_users_max: 1 << 20,
            hold_back_ms: 10_000,
            slow_reader_ms: 30_000,
            close_linger_ms: 5_000,
            room_idle_ms: 600_000,
            rest_ms: 10_000,
            restarts_max: 5,
            restart_window_ms: 10_000,
            failing_devices_max: 1_024,
            sweep_interval_ms: 1_000,
            sweep_pause_ms: 10,
            sweep_records_max: 8_192,
            dedupe_horizon_ms: 86_400_000,
        }
    }
}

impl Limits {
    /// The budget for the parts of long messages.
    #[must_use]
    pub fn uploads(&self) -> Arc<Budget> {
        // Bytes are counted, and each part costs some; a number of its own it needs not.
        Budget::new(usize::MAX >> 1, self.uploads_bytes_max)
    }
}
