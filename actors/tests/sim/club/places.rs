//! Who is in the club: each subscriber, what a stranger may read from, and what somebody who was removed may read up to.

use std::collections::BTreeMap;

use parlor_actors::{message::Conn, port::DeviceKey};
use parlor_protocol::{DeviceTag, Name, Seq};

/// A connection, and the request by which it was let in. One that was added has no request, and takes its own place again.
pub type Place = (Conn, u32);

#[derive(Default)]
pub struct Places {
    taken: BTreeMap<Place, Taken>,
    /// How many subscribers each device has, for all that the channel knows, those that wait to be let in among them.
    here: BTreeMap<DeviceTag, usize>,
    /// Those that wait.
    waiting: BTreeMap<Place, DeviceTag>,
    /// How far the room was, at least, when a device came.
    met: BTreeMap<DeviceTag, Seq>,
}

struct Taken {
    user: Name,
    /// He was let in as a member, as his relay knows.
    member: bool,
    /// All above this is for strangers, and he is one.
    above: Option<Seq>,
    upto: Seq,
    /// He was removed since, and is put out, whoever may come.
    doomed: bool,
    /// Another channel runs the room since.
    taken_up: bool,
}

impl Places {
    /// A join reaches the channel, whose tail this is. `unheard` says that the device has a subscriber of which the channel
    /// may hear later.
    pub fn ask(&mut self, place: Place, device: &DeviceKey, tail: Seq, unheard: bool) {
        let here = self.here.entry(device.tag).or_default();
        if *here == 0 && !unheard {
            self.met.insert(device.tag, tail);
        }
        *here += 1;
        self.waiting.insert(place, device.tag);
    }

    /// Somebody waits no more, if he did.
    pub fn refuse(&mut self, place: Place) {
        if let Some(tag) = self.waiting.remove(&place) {
            self.leave(tag);
        }
    }

    /// A subscriber is gone, as the channel hears.
    pub fn leave(&mut self, tag: DeviceTag) {
        let here = self.here.entry(tag).or_default();
        *here = here.saturating_sub(1);
    }

    /// A subscriber of the channel before is taken up.
    pub fn come_back(&mut self, tag: DeviceTag) {
        *self.here.entry(tag).or_default() += 1;
    }

    /// Another channel runs the room, and knows nobody; of who is what he was when he came it does not hear what he was
    /// meanwhile.
    pub fn begin_anew(&mut self, is: impl Fn(&str, bool) -> bool) {
        self.here.clear();
        self.waiting.clear();
        for taken in self.taken.values_mut() {
            taken.taken_up = true;
            if is(&taken.user, true) || !taken.member && is(&taken.user, false) {
                taken.give_back();
            }
        }
    }

    pub fn met(&self, device: &DeviceKey) -> Seq {
        self.met.get(&device.tag).copied().unwrap_or_default()
    }

    /// Somebody is let in.
    pub fn take(&mut self, place: Place, device: &DeviceKey, member: bool, (above, upto): (Option<Seq>, Option<Seq>)) {
        self.waiting.remove(&place);
        let (user, upto) = (device.user.clone(), upto.unwrap_or(Seq::MAX));
        let taken = Taken { user, member, above, upto, doomed: false, taken_up: false };
        self.taken.insert(place, taken);
    }

    /// A user is removed, as the store has it: he is put out wherever he is.
    pub fn doom(&mut self, user: &str) {
        // Whoever came as a stranger is one to another channel, if he was a member while none ran.
        let known = self.taken.values_mut().filter(|taken| *taken.user == *user && (taken.member || !taken.taken_up));
        known.for_each(|taken| taken.doomed = true);
    }

    /// A user is a member again, or a stranger after a ban. The channel may have been built before, and not know yet that he
    /// is there.
    pub fn give_back(&mut self, user: &str, member: bool) {
        let fits = |taken: &Taken| taken.taken_up && (member || !taken.member);
        let his = self.taken.values_mut().filter(|taken| *taken.user == *user && fits(taken));
        his.for_each(Taken::give_back);
    }

    /// A removal counts, or a ban, which bars him from places that he took meanwhile as well.
    pub fn end(&mut self, user: &str, tail: Seq, bars: bool) {
        for taken in self.taken.values_mut().filter(|taken| *taken.user == *user && (bars || taken.doomed)) {
            taken.upto = taken.upto.min(tail);
        }
    }

    /// What is shown there: if strangers may read, all above the first, and nothing above the second.
    pub fn shown(&self, place: Place) -> (Option<Seq>, Seq) {
        self.taken.get(&place).map_or((None, 0), |taken| (taken.above, taken.upto))
    }

    /// Whether who is there was put out.
    pub fn is_over(&self, place: Place) -> bool {
        self.shown(place).1 < Seq::MAX
    }
}

impl Taken {
    fn give_back(&mut self) {
        (self.doomed, self.upto) = (false, Seq::MAX);
    }
}
