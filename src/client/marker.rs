//! One room's read cursor on its way to the server: the newest wish counts, one mark is under way at a time, and there is
//! a pause between two.

use std::time::Duration;

use parlor_protocol::Seq;

/// The time between two marks of a room.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Marker {
    /// Up to where the application has read.
    wanted: Seq,
    /// Up to where the server was told, and has answered.
    told: Seq,
    under_way: Option<Seq>,
    /// No mark before this time.
    pause: Option<Duration>,
    /// Where the server's cursor stands.
    read: Seq,
}

impl Marker {
    /// The application has read up to here.
    pub(super) fn want(&mut self, seq: Seq) {
        self.wanted = self.wanted.max(seq);
    }

    /// Whether something is to be told, now or later, by a client that holds the room up to `position`: nobody has read
    /// what he does not hold.
    pub(super) fn is_due(&self, position: Seq) -> bool {
        self.under_way.is_none() && self.wanted.min(position) > self.told
    }

    /// The mark to send, if there is one and its time has come; `at_once` if there is no later.
    pub(super) fn next(&mut self, now: Duration, position: Seq, at_once: bool) -> Option<Seq> {
        if !self.is_due(position) || (self.pause.is_some() && !at_once) {
            return None;
        }
        let seq = self.wanted.min(position);
        (self.under_way, self.pause) = (Some(seq), Some(now.saturating_add(PAUSE)));
        Some(seq)
    }

    /// When a mark is due that waits.
    pub(super) fn timeout(&self, position: Seq) -> Option<Duration> {
        self.pause.filter(|_| self.is_due(position))
    }

    /// Time has passed.
    pub(super) fn release(&mut self, now: Duration) {
        self.pause = self.pause.filter(|until| now < *until);
    }

    /// The mark under way was answered, or refused for good: that much was told, wherever the cursor stands now.
    pub(super) fn answered(&mut self) {
        self.told = self.told.max(self.under_way.take().unwrap_or(0));
    }

    /// The mark under way was refused for now, or its connection is lost: again, but not before `pause`.
    pub(super) fn put_off(&mut self, pause: Option<Duration>) {
        self.under_way = None;
        self.pause = pause;
    }

    /// The server says where the cursor stands. Whether it moved; it never goes back.
    pub(super) fn on_read(&mut self, read: Seq) -> bool {
        self.told = self.told.max(read);
        let moved = read > self.read;
        self.read = self.read.max(read);
        moved
    }

    /// The room was joined. With `turned`, its log begins anew behind that seq. Whether the cursor moved meanwhile.
    pub(super) fn on_joined(&mut self, read: Seq, turned: Option<Seq>) -> bool {
        self.put_off(None);
        if let Some(to) = turned {
            self.on_turned(to);
        }
        self.told = read;
        let moved = read > self.read;
        self.read = read;
        moved
    }

    /// The log begins anew behind `to`: what was read above it is of a past that is over.
    pub(super) fn on_turned(&mut self, to: Seq) {
        self.wanted = self.wanted.min(to);
        self.told = self.told.min(to);
        self.read = self.read.min(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_newest_wish_goes_out_once_a_second() {
        let mut marker = Marker::default();
        marker.want(3);
        assert_eq!(marker.next(S, 10, false), Some(3));
        marker.want(5);
        marker.want(4);
        assert_eq!(marker.next(S, 10, false), None, "one at a time");
        marker.answered();
        assert_eq!(marker.next(S, 10, false), None, "a pause");
        assert_eq!(marker.timeout(10), Some(2 * S));
        marker.release(2 * S);
        assert_eq!(marker.next(2 * S, 10, false), Some(5));
        marker.answered();
        marker.release(9 * S);
        assert_eq!((marker.next(9 * S, 10, true), marker.timeout(10)), (None, None), "nothing is left to say");
    }

    #[test]
    fn what_is_not_held_yet_is_not_marked() {
        let mut marker = Marker::default();
        marker.want(8);
        assert_eq!((marker.next(S, 0, true), marker.timeout(0)), (None, None));
        assert_eq!(marker.next(S, 6, false), Some(6));
        marker.answered();
        assert!(marker.is_due(7) && !marker.is_due(6));
    }

    #[test]
    fn an_answer_below_the_mark_does_not_make_it_go_out_for_ever() {
        let mut marker = Marker::default();
        marker.want(8);
        marker.next(S, 8, false);
        marker.on_read(5);
        marker.answered();
        assert!(!marker.is_due(8));
    }

    #[test]
    fn a_lost_mark_goes_out_again() {
        let mut marker = Marker::default();
        marker.want(8);
        marker.next(S, 8, false);
        assert!(marker.on_joined(2, None));
        assert_eq!(marker.next(S, 8, false), Some(8));
        marker.put_off(Some(3 * S));
        assert_eq!((marker.next(S, 8, false), marker.timeout(8)), (None, Some(3 * S)));
        assert!(!marker.on_joined(2, None), "no news");
        assert!(marker.on_joined(9, None), "read on another device");
        assert!(!marker.is_due(8));
    }

    #[test]
    fn a_cursor_never_goes_back_but_with_its_epoch() {
        let mut marker = Marker::default();
        assert!(marker.on_read(5));
        assert!(!marker.on_read(4) && !marker.on_read(5));
        marker.want(7);
        marker.on_joined(1, Some(2));
        assert!(marker.on_read(2));
        assert!(!marker.is_due(9), "what was read in the old epoch says nothing of the new one");
    }
}
