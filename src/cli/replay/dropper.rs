//! A fault between a client and its server: acks that do not arrive.
//!
//! An ack that is lost while all else arrives makes nobody retry, since the sender's own record tells as much. So once a
//! publish is picked, all that the server says on that connection from the first frame on that tells of it is held until the
//! client has sent that publish again; then it goes on in its order, without the first ack.

use std::collections::{HashMap, HashSet};

use parlor_protocol::{
    DeviceTag, Frame, FrameError, Kind, Nonce, RoomNumber, decode, frame,
    frame::PAYLOAD_BYTES_MAX,
    message::{Ack, Deliver, Publish, Welcome},
    split,
};

/// Which acks are dropped. One for each connection.
#[derive(Debug)]
pub(crate) struct Dropper {
    share: f64,
    seed: u64,
    /// The client's own, once it is welcome: another device may have the same nonce for another message.
    device: Option<DeviceTag>,
    /// The newest nonce of each room that was seen: what is above it was not sent before.
    seen: HashMap<RoomNumber, Nonce>,
    /// So many are to be picked.
    due: u32,
    /// Picked publishes that the client has not sent again.
    awaited: HashSet<(RoomNumber, Nonce)>,
    /// Picked publishes whose ack has not been dropped.
    doomed: HashSet<(RoomNumber, Nonce)>,
    asked: Vec<u8>,
    answered: Vec<u8>,
    /// Acks that were dropped.
    pub(crate) dropped: u64,
}

impl Dropper {
    /// Drops this share of the acks; which ones, the seed says.
    pub(crate) fn new(share: f64, seed: u64) -> Self {
        let (awaited, doomed, seen) = Default::default();
        let (asked, answered) = (Vec::new(), Vec::new());
        Self { share, seed, device: None, seen, due: 0, awaited, doomed, asked, answered, dropped: 0 }
    }

    /// One of its own for the connection of this number.
    pub(crate) fn of_connection(&self, number: u64) -> Self {
        Self::new(self.share, self.seed ^ number.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// The client sent these bytes, which go on as they are.
    ///
    /// # Errors
    /// If they are no frames.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        let mut asked = std::mem::take(&mut self.asked);
        asked.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(found) = split(&asked[at..], longest)? {
            at += found.size();
            self.on_request(&found);
        }
        asked.drain(..at);
        self.asked = asked;
        Ok(())
    }

    /// The server sent these bytes.
    pub(crate) fn answer(&mut self, bytes: &[u8]) {
        self.answered.extend_from_slice(bytes);
    }

    /// What the client may have of what the server sent.
    ///
    /// # Errors
    /// If it is no frames.
    pub(crate) fn passing(&mut self) -> Result<Vec<u8>, FrameError> {
        let (mut out, mut at) = (Vec::new(), 0);
        let answered = std::mem::take(&mut self.answered);
        while let Some(found) = split(&answered[at..], longest)?
            && !self.tells_of_awaited(&found)
        {
            if found.header.kind == Kind::Welcome as u16 {
                self.device = decode(found.body).ok().map(|Welcome { device_tag, .. }| device_tag);
            }
            if !self.drops(&found) {
                out.extend_from_slice(&answered[at..at + found.size()]);
            }
            at += found.size();
        }
        self.answered = answered[at..].to_vec();
        Ok(out)
    }

    fn on_request(&mut self, frame: &Frame<'_>) {
        if frame.header.kind != Kind::Publish as u16 {
            return;
        }
        let Ok(Publish { room, nonce, .. }) = decode(frame.body) else { return };
        let seen = self.seen.entry(room).or_default();
        if nonce > *seen {
            *seen = nonce;
            self.due += u32::from(chance(&mut self.seed) < self.share);
            // One at a time: a client that has lost an ack sends that one again before the others.
            if self.due > 0 && self.awaited.is_empty() {
                self.due -= 1;
                self.awaited.insert((room, nonce));
                self.doomed.insert((room, nonce));
            }
        } else {
            self.awaited.remove(&(room, nonce));
        }
    }

    /// Whether a frame says that a picked publish is stored, whose repeat has not come.
    fn tells_of_awaited(&self, frame: &Frame<'_>) -> bool {
        let told = match Kind::from_wire(frame.header.kind) {
            Some(Kind::Ack) => decode(frame.body).map(|Ack { room, nonce, .. }| (room, nonce)),
            Some(Kind::Deliver) => match decode(frame.body) {
                Ok(Deliver { device_tag, .. }) if Some(device_tag) != self.device => return false,
                deliver => deliver.map(|Deliver { room, nonce, .. }| (room, nonce)),
            },
            _ => return false,
        };
        told.is_ok_and(|told| self.awaited.contains(&told))
    }

    fn drops(&mut self, frame: &Frame<'_>) -> bool {
        if frame.header.kind != Kind::Ack as u16 {
            return false;
        }
        let Ok(Ack { room, nonce, .. }) = decode(frame.body) else { return false };
        let drops = self.doomed.remove(&(room, nonce));
        self.dropped += u64::from(drops);
        drops
    }
}

fn longest(header: &frame::Header) -> Result<u32, FrameError> {
    Ok(Kind::from_wire(header.kind).map_or(PAYLOAD_BYTES_MAX, |kind| kind.body_bytes_max(PAYLOAD_BYTES_MAX)))
}

/// From 0 up to 1, by a generator whose seed replays a run (splitmix64).
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
fn chance(seed: &mut u64) -> f64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use parlor_protocol::{
        Extensions,
        message::{ContentType, Durability, RecordKind},
        to_bytes,
    };

    use super::*;

    const ROOM: RoomNumber = RoomNumber(7);

    fn publish(nonce: Nonce) -> Vec<u8> {
        let publish = Publish {
            room: ROOM,
            nonce,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            lifetime_ms: None,
            flags: 0,
            content_type: ContentType::TEXT,
            payload: b"x",
            extensions: Extensions::default(),
        };
        to_bytes(1, &publish).to_vec()
    }

    fn ack(nonce: Nonce, duplicate: bool) -> Vec<u8> {
        let (seq, time, durability, extensions) = (nonce, 1, Durability::Synced, Extensions::default());
        to_bytes(1, &Ack { room: ROOM, nonce, seq, time, durability, duplicate, extensions }).to_vec()
    }

    #[test]
    fn what_follows_a_picked_publish_waits_for_its_repeat() {
        let mut dropper = Dropper::new(1.0, 1);
        // Byte by byte, as a socket may bring it.
        publish(5).iter().for_each(|byte| dropper.ask(&[*byte]).unwrap());
        dropper.answer(&ack(4, false));
        ack(5, false).iter().for_each(|byte| dropper.answer(&[*byte]));
        assert_eq!(dropper.passing().unwrap(), ack(4, false), "what does not tell of it does not wait");
        dropper.answer(&ack(6, false));
        assert!(dropper.passing().unwrap().is_empty());
        dropper.ask(&publish(5)).unwrap();
        assert_eq!(dropper.passing().unwrap(), ack(6, false), "without the first ack");
        dropper.answer(&ack(5, true));
        assert_eq!(dropper.passing().unwrap(), ack(5, true), "the repeat's comes");
        assert_eq!(dropper.dropped, 1);
    }

    fn deliver(nonce: Nonce, device_tag: DeviceTag) -> Vec<u8> {
        let deliver = Deliver {
            room: ROOM,
            seq: nonce,
            time: 1,
            sender: "somebody",
            device_tag,
            nonce,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            expires: 0,
            count: nonce,
            content_type: ContentType::TEXT,
            payload: b"x",
            extensions: Extensions::default(),
        };
        to_bytes(0, &deliver).to_vec()
    }

    #[test]
    fn what_another_device_said_under_the_same_nonce_waits_for_nothing() {
        let mut dropper = Dropper::new(1.0, 1);
        dropper.device = Some(DeviceTag(7));
        dropper.ask(&publish(5)).unwrap();
        dropper.answer(&deliver(5, DeviceTag(8)));
        dropper.answer(&deliver(5, DeviceTag(7)));
        assert_eq!(dropper.passing().unwrap(), deliver(5, DeviceTag(8)));
        assert!(dropper.passing().unwrap().is_empty(), "its own tells that it is stored");
    }

    #[test]
    fn the_share_is_kept() {
        let mut dropper = Dropper::new(0.1, 42);
        for nonce in 1..=10_000 {
            for _ in 0..2 {
                dropper.ask(&publish(nonce)).unwrap();
            }
            dropper.answer(&ack(nonce, false));
            dropper.passing().unwrap();
        }
        assert!((900..1_100).contains(&dropper.dropped), "{}", dropper.dropped);
        let mut none = Dropper::new(0.0, 42);
        none.ask(&publish(1)).unwrap();
        none.answer(&ack(1, false));
        assert_eq!(none.passing().unwrap(), ack(1, false));
    }
}
