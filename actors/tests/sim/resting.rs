//! Nothing goes wrong any more: everybody comes to rest and holds everything, comes back once more, and goes.

use std::collections::{BTreeMap, BTreeSet};

use parlor_actors::{
    members::What,
    message::Conn,
    testkit::{Crash, Faults, with_deliver},
};
use parlor_protocol::{
    Name,
    message::{Durability, RecordKind, Role},
};

use crate::{
    ROOMS, World,
    client::{self, Client, Standing, said},
    house::{CLUB_NUMBER, House, durability_of},
};

impl World {
    /// Nothing breaks any more: everybody comes to rest, and holds everything.
    pub(crate) fn settle(&mut self) {
        self.house.slow = None;
        self.be_answered();
        self.crash(Crash::Process);
        // Whoever was put out or silenced comes back, so that all can be in all rooms.
        let others = ["bob", "cem", "dua"].map(|user| user.parse().unwrap()).into();
        self.house.change_club(What::Set(Role::Member, others));
        self.come_to_rest();
        assert!(self.house.club.is_quiet(), "a change is never answered");
        let agree = self.house.club.records_agree(&self.house.store, CLUB_NUMBER);
        self.house.count(if agree { "records of members agree" } else { "records of members are missing" });
        self.check_logs();
        self.see_who_is_there();
        self.fall_asleep();
        self.wake_up();
        self.come_to_rest();
        self.come_back();
        self.add_again();
        self.come_to_rest();
        self.check_logs();
        self.leave_all();
    }

    /// Nobody asks anything more: whatever is under way comes to an end, whoever died or went to sleep meanwhile.
    fn be_answered(&mut self) {
        let nothing = |faults: &mut Faults| {
            (faults.fail_next_turn, faults.busy_read_one_in, faults.busy_load_one_in) = (false, 0, 0)
        };
        self.house.store.faults(nothing);
        self.run_dry();
        // Rooms that died too often rest for a while.
        for _ in 0..100 {
            if self.house.pending() + self.house.pulls() == 0 {
                break;
            }
            self.house.tick(200);
            self.run_dry();
        }
        // Who follows, and who is behind, waits for rooms that cannot be loaded any more, until they are there.
        if !self.house.store.is_poisoned() {
            self.house.count("all is answered");
            let waits = |conn: &Conn| self.house.pending_of(*conn) > 0;
            let waiting: Vec<Conn> = self.house.conns().into_iter().filter(waits).collect();
            assert_eq!(waiting, [], "they wait for answers that nobody gives");
            assert_eq!(self.house.pulls(), 0, "pulls that nobody answers");
            if self.house.rooms.values().any(|room| room.state.room() == CLUB_NUMBER) {
                self.house.count("all who were put out are out");
                let stays = self.clients.iter().find(|client| client.stays_in(&self.house));
                assert!(stays.is_none(), "{} was put out, and is not told", stays.unwrap().name());
            }
        }
    }

    /// Whoever watches a room knows everybody in it; then nobody watches any more.
    fn see_who_is_there(&mut self) {
        let watch = |world: &mut Self, client: usize, watch| {
            (0..ROOMS.len()).for_each(|room| world.clients[client].watch(&mut world.house, room, watch));
        };
        let watcher = self.house.chance.below(self.clients.len());
        watch(self, watcher, true);
        // Some may have gone just before.
        for _ in 0..6 {
            self.run_dry();
            self.house.tick(200);
        }
        self.run_dry();
        let all: BTreeSet<String> = self.clients.iter().map(|client| client.key.user.to_string()).collect();
        assert!(self.clients[watcher].views.iter().all(|view| view.present.is_some()), "it was told who is there");
        for client in &self.clients {
            for view in client.views.iter().filter(|view| view.present.is_some()) {
                assert_eq!(view.present.as_ref(), Some(&all), "{}: who {} thinks is there", view.name, client.name());
            }
        }
        (0..self.clients.len()).for_each(|client| watch(self, client, false));
    }

    /// Nobody does anything for long: all rooms go to sleep that may.
    fn fall_asleep(&mut self) {
        // The records of the one in memory are nowhere else, and it has subscribers.
        let all = (ROOMS.len() - 1, 1);
        for round in 0..40 {
            self.run_dry();
            if (self.house.asleep(), self.house.rooms.len()) == all {
                break;
            }
            // That somebody is there, and where, is nothing that he wants of a room.
            if round % 8 == 0 {
                self.clients.iter_mut().for_each(|client| client.beat(&mut self.house));
            }
            self.house.tick(200);
        }
        let (sleeps, runs) = (self.house.asleep(), self.house.rooms.len());
        assert_eq!((sleeps, runs), all, "rooms that sleep, and channels, when nobody does anything");
        assert_eq!((self.house.pending(), self.house.pulls()), (0, 0), "requests and pulls under way in their sleep");
    }

    /// Each room is touched by somebody in some way, and wakes.
    fn wake_up(&mut self) {
        for room in 0..ROOMS.len() {
            let at = self.house.chance.below(self.clients.len());
            if self.house.chance.one_in(3) {
                // It is no touch that somebody leaves.
                let other = (at + 1) % self.clients.len();
                self.clients[other].leave(&mut self.house, room);
                self.run_dry();
            }
            let client = &mut self.clients[at];
            if self.house.chance.one_in(2) {
                client.fetch(&mut self.house, room);
            } else {
                client.say(&mut self.house, room);
                client.push(&mut self.house, room, false);
            }
        }
        self.run_dry();
        let (sleeps, runs) = (self.house.asleep(), self.house.rooms.len());
        assert_eq!((sleeps, runs), (0, ROOMS.len()), "rooms that sleep, and channels, when each was touched");
    }

    /// Everybody joins what he is not in and says what he has to, until nobody has anything to do.
    fn come_to_rest(&mut self) {
        for _ in 0..400 {
            for _ in 0..3 {
                self.run_dry();
                for client in &mut self.clients {
                    if client.conn.is_none() {
                        client.connect(&mut self.house);
                    }
                    for room in 0..ROOMS.len() {
                        client.join(&mut self.house, room, false);
                        client.push(&mut self.house, room, false);
                    }
                }
            }
            self.house.tick(200);
            self.house.check_limits();
            if self.is_settled() {
                break;
            }
        }
        assert!(self.is_settled(), "it never comes to rest");
        assert_eq!((self.house.pending(), self.house.pulls()), (0, 0), "requests and pulls under way at rest");
    }

    /// All lose their connections at once, and come back with what they know.
    fn come_back(&mut self) {
        let house = &mut self.house;
        let kept = house.limits.sessions_away_max >= self.clients.len() && house.limits.sessions_away_per_user_max >= 2;
        let taken_up = house.counted("session taken up");
        for client in &mut self.clients {
            client.returns_to_all = true;
            match house.chance.below(3) {
                0 => client.connect(house),
                1 => {
                    client.hang_up(house);
                    client.connect(house);
                }
                _ => client.hang_up(house),
            }
        }
        self.come_to_rest();
        let taken_up = self.house.counted("session taken up") - taken_up;
        assert!(!kept || taken_up == self.clients.len() as u64, "{taken_up} sessions were taken up again");
    }

    /// Who follows is put out and added again, and attached without having asked.
    fn add_again(&mut self) {
        let follows = |client: &&Client| client.follows && *client.key.user != *"ann";
        let users: Vec<Name> = self.clients.iter().filter(follows).map(|client| client.key.user.clone()).collect();
        if users.is_empty() {
            return;
        }
        self.house.count("added again");
        self.house.change_club(What::Remove(users.clone()));
        if self.house.chance.one_in(2) {
            self.run_dry();
        }
        self.house.change_club(What::Set(Role::Member, users));
        for _ in 0..10 {
            self.run_dry();
            self.house.tick(200);
        }
        for client in self.clients.iter().filter(follows) {
            let is_in = client.views[client.club()].standing == Standing::In;
            assert!(is_in, "{} follows and was added, and is not attached", client.name());
        }
    }

    fn run_dry(&mut self) {
        let house = &mut self.house;
        loop {
            let mut moved = false;
            while house.deliver_one() || house.store_step() || house.reader_step() {
                moved = true;
            }
            moved |= house.flush(0) | house.flush(1);
            for conn in house.conns() {
                moved |= house.link_turn(conn);
            }
            for client in &mut self.clients {
                moved |= client.read(house, &mut self.memory, usize::MAX) | client.read_abandoned(house);
            }
            if !moved {
                return;
            }
        }
    }

    fn is_settled(&self) -> bool {
        let at_tail = |client: &Client| {
            let settled = |view: &client::View| {
                view.standing == Standing::In && self.house.tail(&view.name, view.number) == Some(view.position)
            };
            client.views.iter().all(settled)
        };
        self.clients.iter().all(|client| !client.is_busy() && at_tail(client))
    }

    /// What the store holds, and what the clients hold of it.
    fn check_logs(&mut self) {
        for (at, name) in ROOMS.iter().enumerate().filter(|(_, name)| durability_of(name) != Durability::Memory) {
            let number = self.clients[0].views[at].number;
            let tail = self.house.store.extent(&name.parse().unwrap()).map_or(0, |(_, tail)| tail);
            let frames: Vec<_> = (1..=tail).map(|seq| self.house.store.first_frame(number, seq).unwrap()).collect();
            let (mut newest, mut time, mut count, mut changed) = (BTreeMap::new(), 0, 0, false);
            for (frame, seq) in frames.iter().zip(1..) {
                with_deliver(frame, |deliver| {
                    assert_eq!(deliver.seq, seq);
                    if deliver.kind == RecordKind::MEMBERS {
                        return assert!(deliver.time >= time && deliver.count == count, "{name}: {seq}");
                    }
                    let said = said(deliver.kind, deliver.sender, name, deliver.nonce);
                    assert_eq!(deliver.payload, said.as_bytes());
                    changed |= deliver.kind.is_change();
                    assert!(deliver.time >= time, "{name}: time goes back at {seq}");
                    let before = newest.insert(deliver.device_tag, deliver.nonce);
                    assert!(before < Some(deliver.nonce), "{name}: {} out of order or twice at {seq}", deliver.sender);
                    assert!(deliver.count == count || deliver.count == count + 1, "{name}: the count jumps at {seq}");
                    (time, count) = (deliver.time, deliver.count);
                });
            }
            if changed {
                self.house.count("a change");
            }
            for client in &self.clients {
                let view = &client.views[at];
                for (nonce, (_, seq)) in &view.acked {
                    let stored = frames.get(usize::try_from(*seq).unwrap() - 1).map(|frame| {
                        with_deliver(frame, |deliver| deliver.device_tag == client.key.tag && deliver.nonce == *nonce)
                    });
                    assert_eq!(stored, Some(true), "{name}: {}'s {nonce} was acknowledged at {seq}", client.key.user);
                }
                for (seq, frame) in &view.held {
                    let stored = self.house.store.holds(number, *seq, frame);
                    assert!(stored, "{name}: {} holds another {seq}", client.key.user);
                }
            }
        }
    }

    fn leave_all(&mut self) {
        let tables = |house: &House| -> Vec<(u32, usize, usize)> {
            house
                .rooms
                .values()
                .map(|room| (room.state.subscribers(), room.state.devices(), room.state.reading()))
                .collect()
        };
        (0..ROOMS.len()).for_each(|room| self.clients[0].fetch(&mut self.house, room));
        self.run_dry();
        let all = u32::try_from(self.clients.len()).unwrap();
        for (subscribers, devices, reading) in tables(&self.house) {
            assert!(
                subscribers == all && devices >= self.clients.len() && reading == 0,
                "the tables of a room at rest: {subscribers} subscribers, {devices} devices, {reading} reads"
            );
        }
        let (leavers, others) = self.clients.split_at_mut(2);
        for client in &mut *leavers {
            (0..ROOMS.len()).for_each(|room| client.leave(&mut self.house, room));
        }
        others.iter_mut().for_each(|client| client.hang_up_all(&mut self.house));
        leavers.iter_mut().for_each(|client| client.give_up_abandoned(&mut self.house));
        self.run_dry();
        assert_eq!(self.house.connections(), 2);
        for room in self.house.rooms.values() {
            let state = &room.state;
            assert_eq!(state.subscribers(), 0, "subscribers of an empty room");
            assert!(state.devices() <= 2, "{} devices of an empty room", state.devices());
            assert!(!self.house.relays_know(state.room()), "a relay knows an empty room");
        }
        self.clients.iter_mut().for_each(|client| client.hang_up_all(&mut self.house));
        self.run_dry();
        assert_eq!((self.house.connections(), self.house.pending()), (0, 0));
        self.house.check_sessions();
        // Their leases end.
        (0..30).for_each(|_| self.house.tick(400));
        self.run_dry();
        self.house.check_empty();
    }
}
