//! What the checks of the club are told of those who come and go.

use parlor_actors::{
    channel::state::{Input, Sleep},
    message::{Conn, FromChannel, Join},
    port::DeviceKey,
};
use parlor_protocol::{RoomNumber, Seq};

use super::{CLUB_NUMBER, House, ToRelay};

impl House {
    /// The club's channel is about to handle this.
    pub(super) fn note_input(&mut self, tail: Seq, input: &Input) {
        match input {
            Input::Join(Join { conn, request, device, .. }) => {
                let unheard = self.may_be_taken_up(device);
                self.club.places.ask((*conn, *request), device, tail, unheard);
            }
            Input::Detached { device, .. } => self.club.places.leave(device.tag),
            Input::Adopt { devices, .. } | Input::Sleep(Sleep::Woken { devices, .. }) => {
                let woken = matches!(input, Input::Sleep(_));
                for returning in devices {
                    self.club.places.come_back(returning.device.tag);
                    if self.club.hides_past() && !returning.member {
                        self.count(if woken { "stranger woken" } else { "stranger taken up" });
                    }
                }
            }
            _ => {}
        }
    }

    /// The club's channel tells a relay this.
    pub(super) fn note_news(&mut self, news: &FromChannel) {
        match news {
            FromChannel::Attach(attach) => {
                if let Some(what) = self.club.lets_in(attach) {
                    self.count(what);
                }
            }
            FromChannel::Refused { conn, request, .. } => self.club.places.refuse((*conn, *request)),
            _ => {}
        }
    }

    /// A relay puts somebody out.
    pub(super) fn note_lost(&mut self, conn: Conn, room: RoomNumber) {
        self.count("put out");
        let user = self.line_of(conn).map(|line| line.device.user.clone());
        if room == CLUB_NUMBER && user.is_some_and(|user| self.club.is_stranger(&user)) {
            self.count("put out of an open room");
        }
    }

    /// Whether relays know of a subscriber of this device, of which a channel may not have heard.
    fn may_be_taken_up(&self, device: &DeviceKey) -> bool {
        let coming = |message: &ToRelay| {
            let ToRelay::News { room: CLUB_NUMBER, news: FromChannel::Attach(attach), .. } = message else {
                return false;
            };
            attach.device == *device
        };
        self.arbiters.iter().any(|arbiter| {
            let known = arbiter.state.devices_in(CLUB_NUMBER);
            known.iter().any(|returning| returning.device == *device) || arbiter.mailbox.iter().any(coming)
        })
    }
}
