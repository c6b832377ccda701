//! What the house is like: small limits, so that each is met.

use parlor_actors::{limits::Limits, port::RoomOptions, session::heartbeat::BeatIntervals, tiers::SendRate};
use parlor_protocol::message::{Access, Announce, Durability, Past};

/// What every fourth seed lets a user send: slow enough to be met, fast enough to get somewhere.
pub(super) const SLOW: SendRate = SendRate { interval_ms: 150, burst: 3 };

pub fn limits(seed: u64) -> Limits {
    Limits {
        payload_bytes_max: 200,
        rooms_per_session_max: 4,
        // In most seeds enough for all, so that leases end those that nobody takes up.
        sessions_away_max: if seed % 8 == 3 { 3 } else { 8 },
        sessions_away_per_user_max: if seed % 8 == 5 { 1 } else { 2 },
        parked_per_room_max: 5,
        parked_per_device_max: 2,
        unanswered_requests_max: 6,
        outbound_bytes_max: 1_500,
        outbound_low_bytes: 300,
        ring_records_max: 6,
        ring_bytes_max: 700,
        // In some seeds each room's part, a sixteenth, is less than its ring, or less than one record.
        rings_bytes_max: match seed % 5 {
            2 => 16 * 500,
            // As much as the configuration demands: the longest message here, and a change of it.
            4 => 16 * 100,
            _ => 1 << 20,
        },
        page_records: 3,
        page_records_max: 5,
        page_bytes_max: 400,
        answers_per_device_max: 8,
        absent_devices_per_room_max: 2,
        reads_per_room_max: 3,
        rooms_loaded_max: 4,
        waiters_per_room_max: 8,
        writer_records_max: 6,
        connections_per_turn_max: 2,
        // Longer than any client here takes to send again: what is given up is tested elsewhere.
        hold_back_ms: 10_000_000,
        slow_reader_ms: 3_000,
        close_linger_ms: 500,
        // Shorter than most answers take, about as long, and longer: rooms sleep often, and with much on its way.
        room_idle_ms: [40, 200, 700][usize::try_from(seed % 3).unwrap()],
        presence_window_ms: 300,
        presence_outbound_bytes_max: 300,
        rest_ms: 500,
        restarts_max: 3,
        restart_window_ms: 1_000,
        ..Limits::default()
    }
}

/// Into the club come its members alone, or anybody, and of those some may read all of it.
pub(super) fn club_options(seed: u64) -> RoomOptions {
    let (access, past) = match seed / 8 % 4 {
        1 => (Access::Open, Past::ByAccess),
        3 => (Access::Open, Past::SinceAdded),
        _ => (Access::Members, Past::ByAccess),
    };
    RoomOptions { durability: Durability::Synced, access, past, announce: Announce::Always, ..RoomOptions::default() }
}

/// A room's name begins with what an ack means in it.
pub fn durability_of(name: &str) -> Durability {
    match name.as_bytes()[0] {
        b'm' => Durability::Memory,
        b'b' => Durability::Buffered,
        _ => Durability::Synced,
    }
}

/// The longest is that of the network that clients say hello from.
pub(super) fn beats() -> BeatIntervals {
    BeatIntervals { wired_ms: 1_000, wifi_ms: 3_000, least_ms: 1_000, grace_least_ms: 200, ..BeatIntervals::default() }
}
