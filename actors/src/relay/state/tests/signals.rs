//! Signals under and without pressure, notices, and what clients have received.

use parlor_protocol::message::Signaled;

use super::*;
use crate::message::Signal;

/// A signal of somebody, whose payload says which.
fn signal(conn: Option<Conn>, sender: &str, key: u32, says: u8) -> Signal {
    let signaled = Signaled {
        room: Some(ROOM),
        sender,
        device_tag: DeviceTag(1),
        key,
        payload: &[says],
        extensions: Extensions::default(),
    };
    let frame = parlor_protocol::to_bytes(0, &signaled);
    Signal { conn, request: 0, device: super::key(sender), key, frame }
}

fn pressed() -> Relay {
    let limits = Limits {
        outbound_bytes_max: 4_000,
        outbound_low_bytes: 2_000,
        signals_outbound_bytes_max: 300,
        signals_waiting_max: 3,
        ..Limits::default()
    };
    Relay { state: State::new(1, Arc::new(limits)), now: 0 }
}

impl Relay {
    fn signal(&mut self, sender: &str, key: u32, says: u8) {
        self.news(FromChannel::Signal(signal(None, sender, key, says)), &[]);
    }

    /// What a connection is given, signals by key and payload.
    fn hears(&mut self, conn: Conn) -> String {
        let mut heard = Vec::new();
        while self.state.outbound(conn).unwrap().bytes() > 0 {
            let socket = Socket { open: true, taken: RefCell::default() };
            let outbound = self.state.outbound(conn).unwrap();
            let _ = outbound.poll_drain(&socket, &mut std::task::Context::from_waker(std::task::Waker::noop()));
            self.state.on_written(conn, true, self.now);
            let taken = socket.taken.take();
            let mut rest = &taken[..];
            while let Some(header) = rest.first_chunk() {
                let header = Header::from_bytes(header);
                let (frame, behind) = rest.split_at(HEADER_BYTES + header.len as usize);
                rest = behind;
                heard.push(if header.kind == Kind::Signaled as u16 {
                    let signaled: Signaled<'_> = parlor_protocol::decode(&frame[HEADER_BYTES..]).unwrap();
                    format!("{}{}={}", signaled.sender, signaled.key, signaled.payload[0])
                } else {
                    text(frame)
                });
            }
        }
        heard.join(" ")
    }
}

#[test]
fn a_signal_goes_to_all_subscribers_but_the_one_who_sent_it() {
    let mut relay = relay();
    let (ann, bob) = (relay.live("ann", 4), relay.live("bob", 4));
    let cid = relay.connect("cid");
    relay.news(FromChannel::Signal(signal(Some(ann), "ann", 7, 1)), &[]);
    assert_eq!((relay.hears(ann), relay.hears(bob), relay.hears(cid)), (String::new(), "ann7=1".into(), String::new()));
    // The same place and number on another arbiter is somebody else.
    let other = Conn { arbiter: 0, ..ann };
    relay.news(FromChannel::Signal(signal(Some(other), "ann", 7, 2)), &[]);
    assert_eq!(relay.hears(ann), "ann7=2");
}

#[test]
fn all_receivers_share_one_frame() {
    let mut relay = relay();
    let conns = [relay.live("ann", 4), relay.live("bob", 4)];
    let news = signal(None, "cid", 7, 1);
    relay.news(FromChannel::Signal(news.clone()), &[]);
    for conn in conns {
        let chunk = relay.state.outbound(conn).unwrap().pop().unwrap();
        assert_eq!(chunk.as_ptr(), news.frame.as_ptr());
    }
}

#[test]
fn under_pressure_the_newest_of_each_sender_and_key_is_kept_and_records_come_first() {
    let mut relay = pressed();
    let ann = relay.live("ann", 4);
    relay.news(batch(5, 5, 301), &[]);
    for (sender, key, says) in [("bob", 1, 1), ("cid", 1, 2), ("bob", 1, 3), ("bob", 2, 4), ("bob", 2, 5)] {
        relay.signal(sender, key, says); // Three may wait, so that none makes room for want of it.
    }
    relay.news(batch(6, 6, 10), &[]);
    assert_eq!(relay.state.signals_dropped(), 2);
    assert_eq!(relay.hears(ann), "5 6 cid1=2 bob1=3 bob2=5");
    relay.signal("bob", 1, 5);
    relay.signal("bob", 1, 6);
    assert_eq!(relay.hears(ann), "bob1=5 bob1=6", "without pressure all come");
}

#[test]
fn no_more_than_so_many_wait_and_the_oldest_make_room() {
    let mut relay = pressed();
    let ann = relay.live("ann", 4);
    relay.news(batch(5, 5, 301), &[]);
    for key in 0..100 {
        relay.signal("bob", key, 0);
    }
    assert_eq!(relay.state.signals_dropped(), 97);
    assert_eq!(relay.hears(ann), "5 bob97=0 bob98=0 bob99=0");
    assert!(relay.state.is_dirty(), "they were written behind the record");
}

#[test]
fn nothing_of_a_room_follows_when_it_was_left() {
    let mut relay = pressed();
    let ann = relay.live("ann", 4);
    relay.news(batch(5, 5, 301), &[]);
    relay.signal("bob", 1, 1);
    relay.state.on_signal_to(&[ann], &signal(None, "bob", 2, 2));
    relay.state.on_left(ann, 9, ROOM);
    relay.effects();
    assert_eq!(relay.hears(ann), "5 #9 left at 5 bob2=2", "what is for the user comes all the same");
}

#[test]
fn a_user_is_signalled_on_the_connections_that_still_are() {
    let mut relay = relay();
    let (ann, bob) = (relay.connect("ann"), relay.connect("ann"));
    relay.state.on_disconnect(bob);
    relay.state.on_signal_to(&[ann, bob], &signal(None, "cid", 7, 1));
    assert_eq!(relay.hears(ann), "cid7=1");
    relay.state.on_signal_to(&[ann], &signal(Some(ann), "ann", 7, 2));
    assert_eq!(relay.hears(ann), "", "his own");
}

#[test]
fn a_refused_signal_is_told_under_its_number_only() {
    let mut relay = relay();
    let ann = relay.live("ann", 4);
    for request in [0, 7] {
        let (conn, code) = (ann, Code::NotJoined);
        relay.news(FromChannel::SignalRefused { conn, request, code, message: "" }, &[]);
    }
    assert_eq!(relay.reads(ann), "#7 NotJoined");
}

#[test]
fn a_notice_goes_to_those_who_are_still_attached() {
    let mut relay = relay();
    let (ann, bob) = (relay.live("ann", 4), relay.connect("bob"));
    let news = FromChannel::Notice { conns: vec![ann, bob, Conn { serial: 99, ..ann }], frame: deliver(9, 1) };
    relay.news(news, &[]);
    assert_eq!((relay.reads(ann), relay.reads(bob)), ("9".into(), String::new()));
}

#[test]
fn a_position_is_passed_on_once_and_only_forward() {
    let mut relay = relay();
    let ann = relay.live("ann", 4);
    let mut beat = |seq, epoch, want: &[&str]| {
        relay.state.on_beat(ann, &[Position { room: ROOM, epoch: Epoch(epoch), seq }]);
        assert_eq!(relay.effects(), want, "{seq} of {epoch}");
    };
    beat(3, 3, &["ann has 3"]);
    beat(3, 3, &[]);
    beat(2, 3, &[]);
    beat(4, 3, &["ann has 4"]);
    beat(9, 3, &[]); // Above the tail.
    beat(1, 2, &[]); // Of an epoch that is over.
}
