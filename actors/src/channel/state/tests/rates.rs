//! How fast a user may send, and what costs him nothing.

use super::*;

/// A synced room of ann and bob, each of whom may send two at once and one a second.
fn slow() -> Room {
    let mut room = joined(0);
    room.state.tiers = Arc::new(Tiers::sending(SendRate { interval_ms: 1_000, burst: 2 }));
    room
}

#[test]
fn over_the_rate_nothing_is_stored_and_later_sends_do_not_overtake() {
    let mut room = slow();
    room.ann(1, 1, &["end turn"]);
    room.ann(2, 2, &[]);
    room.commit();
    room.ann(3, 3, &["0: #3 RateLimited for 1000"]);
    room.ann(4, 4, &["0: #4 HeldBack"]);
    room.say(("bob", 1), 5, 1, "y", &["end turn"]);
    assert_eq!(room.commit(), ["append 3-3", "0: batch 3", "1: batch 3, #5 stored at 3"]);
    // A token is there, but it is for the one that was refused first.
    room.now.mono_ms = 1_000;
    room.ann(6, 4, &["0: #6 HeldBack"]);
    room.ann(7, 3, &["end turn"]);
    room.ann(8, 4, &["0: #8 RateLimited for 1000"]);
    room.now.mono_ms = 1_999;
    room.ann(9, 4, &["0: #9 RateLimited for 1"]);
    // What waits longer than others are held back is not overtaken either.
    room.ann(10, 5, &["0: #10 HeldBack"]);
}

#[test]
fn a_wait_longer_than_the_hold_is_not_overtaken() {
    let mut room = joined(0);
    room.state.tiers = Arc::new(Tiers::sending(SendRate { interval_ms: 5_000, burst: 1 }));
    room.ann(1, 1, &["end turn"]);
    room.ann(2, 2, &["0: #2 RateLimited for 5000"]);
    room.now.mono_ms = 5_000;
    room.ann(3, 3, &["0: #3 HeldBack"]);
    room.ann(4, 2, &[]);
}

#[test]
fn only_a_new_message_costs_a_token() {
    let mut room = slow();
    room.ann(1, 5, &["end turn"]);
    for _ in 0..10 {
        room.ann(2, 5, &[]);
        room.say(("ann", 0), 3, 5, "other", &["0: #3 NonceConflict"]);
        room.ann(4, 4, &["0: #4 NonceTooOld"]);
    }
    room.ann(5, 6, &[]);
    room.commit();
    room.ann(6, 7, &["0: #6 RateLimited for 1000"]);
    room.now.mono_ms = 999;
    for _ in 0..10 {
        room.ann(7, 8, &["0: #7 HeldBack"]);
    }
    room.now.mono_ms = 1_000;
    room.ann(8, 7, &["end turn"]);
}

#[test]
fn a_full_queue_costs_no_token() {
    let mut room = slow();
    room.say(("bob", 1), 1, 1, "y", &["end turn"]);
    room.say(("bob", 1), 2, 2, "y", &[]);
    // The writer's queue takes two.
    room.ann(3, 1, &["0: #3 Busy"]);
    room.commit();
    room.ann(4, 1, &["end turn"]);
    room.ann(5, 2, &[]);
}

#[test]
fn rooms_and_devices_share_a_users_bucket() {
    let (mut one, mut other) = (slow(), slow());
    other.state.rates = one.state.rates.clone();
    one.ann(1, 1, &["end turn"]);
    other.ann(1, 1, &["end turn"]);
    one.ann(2, 2, &["0: #2 RateLimited for 1000"]);
    other.ann(2, 2, &["0: #2 RateLimited for 1000"]);
    other.say(("bob", 1), 3, 1, "y", &[]);
}

#[test]
fn a_room_has_a_limit_of_its_own() {
    let mut room = joined(0);
    room.state.options.messages_per_second_max = 2;
    room.ann(1, 1, &["end turn"]);
    room.say(("bob", 1), 2, 1, "y", &[]);
    room.commit();
    room.ann(3, 2, &["0: #3 RateLimited for 500"]);
    room.say(("bob", 1), 4, 2, "y", &["1: #4 RateLimited for 500"]);
    room.now.mono_ms = 500;
    room.ann(5, 2, &["end turn"]);
    room.say(("bob", 1), 6, 2, "y", &["1: #6 RateLimited for 500"]);
}

#[test]
fn what_the_room_refuses_costs_the_user_nothing() {
    let mut room = slow();
    room.state.options.messages_per_second_max = 1;
    room.ann(1, 1, &["end turn"]);
    room.ann(2, 2, &["0: #2 RateLimited for 1000"]);
    room.state.options.messages_per_second_max = 0;
    room.ann(3, 2, &[]);
    room.commit();
    room.ann(4, 3, &["0: #4 RateLimited for 1000"]);
}

#[test]
fn a_room_may_take_shorter_payloads_than_the_server() {
    let mut room = joined(0);
    room.state.options.payload_bytes_max = 3;
    room.check(Input::Publish(publish("ann", 0, 2, 1, "four")), &["0: #2 TooLarge"]);
    room.check(Input::Publish(publish("ann", 0, 3, 1, "and")), &["end turn"]);
    room.handle(Input::EndOfTurn);
    room.handle(Input::Committed(1));
    room.state.options.payload_bytes_max = 2;
    room.check(Input::Publish(publish("ann", 0, 4, 1, "and")), &["0: #4 stored at 1 again"]);
}
