//! One session, as it stands in the router's map and as readers see it.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicU8, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use parlor_protocol::{
    DeviceTag, Name, UnixMillis,
    message::{DeviceClass, Network},
};

use crate::message::Conn;

/// The newest beats whose times are kept of a session.
pub const BEATS_KEPT: usize = 4;

/// One session, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The session's device.
    pub device: Name,
    /// The device's tag.
    pub device_tag: DeviceTag,
    /// What kind of device.
    pub device_class: DeviceClass,
    /// What it is connected through.
    pub network: Network,
    /// Since when.
    pub since: UnixMillis,
    /// Its connection, or the last one that it had.
    pub conn: Conn,
    /// Whether that stands. Where it broke, the session may come back until its lease ends.
    pub connected: bool,
    /// When its last beats came, the newest first; 0 where there was none. Each hello counts as a beat.
    pub beats: [UnixMillis; BEATS_KEPT],
}

/// A session's entry in the router's map. The supervisor puts it there; the session that it is of writes it, beside
/// whoever reads.
#[derive(Debug)]
pub struct Entry {
    device: Name,
    device_tag: DeviceTag,
    conn: Conn,
    since: AtomicU64,
    /// One more than are kept, so that the one that is being written is none that is read.
    beats: [AtomicU64; BEATS_KEPT + 1],
    /// How many beats there were.
    count: AtomicU64,
    device_class: DeviceClass,
    network: AtomicU8,
    connected: AtomicBool,
}

impl Entry {
    /// The session's device.
    #[must_use]
    pub fn device_tag(&self) -> DeviceTag {
        self.device_tag
    }

    /// What kind of device that is.
    #[must_use]
    pub fn device_class(&self) -> DeviceClass {
        self.device_class
    }

    /// Its connection, or the last one that it had.
    #[must_use]
    pub fn conn(&self) -> Conn {
        self.conn
    }

    /// Since when it has been there.
    #[must_use]
    pub fn since(&self) -> UnixMillis {
        self.since.load(Relaxed)
    }

    /// What it is connected through.
    #[must_use]
    pub fn network(&self) -> Network {
        network(self.network.load(Relaxed))
    }

    /// Whether its connection stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// The session's device by its name.
    pub(super) fn device(&self) -> &Name {
        &self.device
    }

    /// A beat came. Called by the session alone; true if its network is another one from now on.
    pub fn beat(&self, at: UnixMillis, network: Option<Network>) -> bool {
        let count = self.count.load(Relaxed);
        self.beats[slot(count)].store(at, Release);
        self.count.store(count + 1, Release);
        network.is_some_and(|network| self.network.swap(network as u8, Relaxed) != network as u8)
    }

    /// Its connection is there, or broke.
    pub fn connect(&self, connected: bool) {
        self.connected.store(connected, Relaxed);
    }

    /// Goes on from the entry of its session's earlier connection. Before the session itself begins to write.
    pub fn follow(&self, earlier: &Self) {
        self.since.store(earlier.since(), Relaxed);
        let [newest, ..] = self.beats();
        self.count.store(0, Relaxed);
        for at in earlier.beats()[..BEATS_KEPT - 1].iter().rev().filter(|at| **at != 0) {
            self.beat(*at, None);
        }
        self.beat(newest, None);
    }

    fn beats(&self) -> [UnixMillis; BEATS_KEPT] {
        loop {
            let count = self.count.load(Acquire);
            let before = |back| count.checked_sub(1 + back as u64);
            let beats = std::array::from_fn(|back| before(back).map_or(0, |at| self.beats[slot(at)].load(Acquire)));
            // A beat that came meanwhile went where nothing was read; behind it there may be one that did not.
            if self.count.load(Relaxed) == count {
                return beats;
            }
        }
    }
}

/// Where a beat is kept, by how many came before it.
#[expect(clippy::cast_possible_truncation, reason = "there are few slots")]
fn slot(number: u64) -> usize {
    (number % (BEATS_KEPT as u64 + 1)) as usize
}

impl From<Presence> for Arc<Entry> {
    fn from(presence: Presence) -> Self {
        let Presence { device, device_tag, device_class, network, since, conn, connected, beats } = presence;
        let entry = Entry {
            device,
            device_tag,
            conn,
            since: since.into(),
            beats: Default::default(),
            count: AtomicU64::new(0),
            device_class,
            network: AtomicU8::new(network as u8),
            connected: connected.into(),
        };
        for at in beats.into_iter().rev().filter(|at| *at != 0) {
            entry.beat(at, None);
        }
        Self::new(entry)
    }
}

impl From<&Entry> for Presence {
    fn from(entry: &Entry) -> Self {
        Self {
            device: entry.device.clone(),
            device_tag: entry.device_tag,
            device_class: entry.device_class,
            network: entry.network(),
            since: entry.since(),
            conn: entry.conn,
            connected: entry.is_connected(),
            beats: entry.beats(),
        }
    }
}

fn network(number: u8) -> Network {
    const ALL: [Network; 7] = [
        Network::Unknown,
        Network::Wired,
        Network::Wifi,
        Network::Mobile2g,
        Network::Mobile3g,
        Network::Mobile4g,
        Network::Mobile5g,
    ];
    // Nothing else is stored.
    ALL.into_iter().find(|known| *known as u8 == number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(since: UnixMillis) -> Arc<Entry> {
        let conn = Conn { arbiter: 0, slot: 0, serial: since };
        let presence = Presence {
            device: "phone".parse().unwrap(),
            device_tag: DeviceTag(1),
            device_class: DeviceClass::Mobile,
            network: Network::Wifi,
            since,
            conn,
            connected: true,
            beats: [since, 0, 0, 0],
        };
        assert_eq!(Presence::from(&*Arc::from(presence.clone())), presence);
        presence.into()
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 104, "{} bytes", size_of::<Entry>());
    }

    #[test]
    fn the_last_four_beats_are_shown_newest_first() {
        let entry = entry(10);
        let mut want = [10, 0, 0, 0];
        for at in 11..30 {
            entry.beat(at, None);
            want.rotate_right(1);
            want[0] = at;
            assert_eq!(entry.beats(), want);
        }
    }

    #[test]
    fn a_session_that_goes_on_keeps_its_beats_and_its_beginning() {
        let (first, second) = (entry(10), entry(50));
        for at in [20, 30, 40] {
            first.beat(at, None);
        }
        second.follow(&first);
        assert_eq!((second.since(), second.beats()), (10, [50, 40, 30, 20]));
        let third = entry(60);
        third.follow(&entry(55));
        assert_eq!(third.beats(), [60, 55, 0, 0]);
    }

    #[test]
    fn a_network_that_changes_is_noticed_once() {
        let entry = entry(10);
        assert!(!entry.beat(11, None) && !entry.beat(12, Some(Network::Wifi)));
        for number in 0..7 {
            assert_eq!(network(number) as u8, number);
        }
        assert!(entry.beat(13, Some(Network::Mobile5g)));
        assert_eq!(entry.network(), Network::Mobile5g);
        assert!(!entry.beat(14, Some(Network::Mobile5g)));
    }

    #[test]
    fn a_reader_beside_a_beat_sees_times_in_their_order() {
        let entry = entry(1);
        std::thread::scope(|scope| {
            scope.spawn(|| (2..200_000).for_each(|at| assert!(!entry.beat(at, None))));
            for _ in 0..20_000 {
                assert!(entry.beats().is_sorted_by(|newer, older| newer > older || *older == 0));
            }
        });
    }
}
