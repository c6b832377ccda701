//! What a client did not ask for, while it does not read: it costs bounded memory.

use parlor_protocol::message::Marked;

use super::*;

const OTHER: RoomNumber = RoomNumber(2);

/// How far its user has read a room on another device.
fn marked(room: RoomNumber, read: Seq) -> Bytes {
    parlor_protocol::to_bytes(0, &Marked { room, read, unread: 0, extensions: Extensions::default() })
}

impl Relay {
    fn waiting(&mut self, conn: Conn) -> usize {
        self.state.outbound(conn).unwrap().bytes()
    }

    /// The socket takes one byte.
    fn trickle(&mut self, conn: Conn, taken: &mut Vec<u8>) {
        let written = self.state.outbound(conn).unwrap().write_with(|slices| {
            taken.push(slices[0][0]);
            Poll::Ready(Ok(1))
        });
        assert!(matches!(written, Poll::Ready(Ok(()))));
        self.state.on_written(conn, true, self.now);
    }

    /// The socket takes all that is left.
    fn take_rest(&mut self, conn: Conn, taken: &mut Vec<u8>) {
        while self.waiting(conn) > 0 {
            taken.extend(self.state.outbound(conn).unwrap().pop().unwrap());
            self.state.on_written(conn, true, self.now);
        }
    }

    /// Attached without having asked, as somebody who follows is when he is added.
    fn attach_unasked(&mut self, conn: Conn, user: &str, room: RoomNumber) {
        self.state.begin(conn, Pending { request: 0, room: Some(room), asks: Asks::Follow });
        let (name, answer) = ("room".parse().unwrap(), deliver(1, 10));
        let (device, epoch) = (key(user), Epoch(3));
        let attach = Attach {
            conn,
            request: 0,
            device,
            member: false,
            met: Mark::default(),
            name,
            epoch,
            tail: 4,
            cursor: 4,
            answer,
        };
        self.state.on_news(room, FromChannel::Attach(attach));
        self.effects();
    }

    fn put_out(&mut self, user: &str) -> Vec<String> {
        let (users, code) = ([user.parse().unwrap()].into(), Code::Forbidden);
        self.state.on_news(ROOM, FromChannel::Detach { users, code, message: "" });
        self.effects()
    }

    /// The user reads on another device.
    fn reads_elsewhere(&mut self, conn: Conn, room: RoomNumber, read: Seq) {
        self.state.on_news(room, FromChannel::Notice { conns: vec![conn], frame: marked(room, read) });
    }

    /// Which cursors the client has been told of when it has read everything, behind what it took before.
    fn reads_cursors(&mut self, conn: Conn, mut taken: Vec<u8>) -> Vec<(u64, Seq)> {
        self.take_rest(conn, &mut taken);
        let (mut cursors, mut rest) = (Vec::new(), &taken[..]);
        while let Some(header) = rest.first_chunk() {
            let header = Header::from_bytes(header);
            let (frame, behind) = rest.split_at(HEADER_BYTES + header.len as usize);
            rest = behind;
            if header.kind == Kind::Marked as u16 {
                let Marked { room, read, .. } = parlor_protocol::decode(&frame[HEADER_BYTES..]).unwrap();
                cursors.push((room.0, read));
            }
        }
        cursors
    }
}

#[test]
fn what_a_user_reads_elsewhere_costs_a_client_that_does_not_read_one_frame_for_each_room() {
    let mut relay = relay();
    let ann = relay.live("ann", 4);
    relay.attach_unasked(ann, "ann", OTHER);
    relay.reads(ann);
    let mut taken = Vec::new();
    for read in 1..=10_000 {
        relay.reads_elsewhere(ann, ROOM, read);
        relay.reads_elsewhere(ann, OTHER, read);
        if read % 1_000 == 0 {
            relay.trickle(ann, &mut taken);
        }
        let waits = relay.waiting(ann);
        assert!(waits <= 100 + marked(ROOM, read).len(), "{waits} bytes");
    }
    let heard = relay.reads_cursors(ann, taken);
    assert!(heard.len() < 20, "{heard:?}");
    for room in [1, 2] {
        let cursors: Vec<Seq> = heard.iter().filter(|(of, _)| *of == room).map(|(_, read)| *read).collect();
        assert!(cursors.is_sorted() && cursors.last() == Some(&10_000), "{heard:?}");
    }
    // Read at once, each is told, and the newest is never followed by an older one.
    relay.reads_elsewhere(ann, ROOM, 10_001);
    relay.reads_elsewhere(ann, ROOM, 10_002);
    assert_eq!(relay.reads_cursors(ann, Vec::new()), [(1, 10_001), (1, 10_002)]);
    // Nothing of a room follows when it was left.
    relay.state.on_frame(ann, deliver(1, 101));
    relay.reads_elsewhere(ann, ROOM, 10_003);
    relay.reads_elsewhere(ann, OTHER, 10_003);
    relay.state.on_left(ann, 9, ROOM);
    assert_eq!(relay.reads_cursors(ann, Vec::new()), [(2, 10_003)]);
}

#[test]
fn who_does_not_read_what_he_did_not_ask_for_is_closed_before_it_is_much() {
    let mut relay = relay();
    let ann = relay.connect("ann");
    let (mut told, mut most, mut taken) = (0, 0, Vec::new());
    while relay.state.takes(ann) && told < 1_000 {
        told += 1;
        relay.attach_unasked(ann, "ann", ROOM);
        relay.put_out("ann");
        // As slow as it can be without being found to take nothing.
        relay.trickle(ann, &mut taken);
        relay.tick(29, &[]);
        most = most.max(relay.waiting(ann));
    }
    assert!(most <= 2 * 400, "{most} bytes");
    relay.take_rest(ann, &mut taken);
    let read = text(&taken);
    assert!(read.ends_with(" close SlowReader"), "{read}");
}

#[test]
fn who_reads_may_be_told_any_number_of_things_and_ask_for_more() {
    let mut relay = relay();
    let ann = relay.connect("ann");
    for _ in 0..1_000 {
        relay.attach_unasked(ann, "ann", ROOM);
        relay.put_out("ann");
        assert!(relay.reads(ann).ends_with("Detached"));
    }
    // What was asked for is bounded by how much may be asked: it is never a reason to close.
    for request in 1..1_000 {
        relay.state.on_send(ann, request, &Left { room: ROOM, cursor: 1, extensions: Extensions::default() });
    }
    relay.attach_unasked(ann, "ann", ROOM);
    assert!(relay.state.takes(ann) && !relay.state.may_ask(ann));
}
