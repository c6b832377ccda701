//! What goes wrong, by chance, and whom the host lets in and puts out.

use parlor_actors::{members::What, testkit::Crash};
use parlor_protocol::{
    Name,
    message::{Durability, Role},
};

use crate::{
    ROOMS, World,
    house::{self, Plant, durability_of},
};

impl World {
    /// The host gives somebody another role in the club, or takes his away.
    pub(crate) fn change_members(&mut self) {
        let house = &mut self.house;
        let mut users: Vec<Name> = vec![house.chance.pick(&["bob", "cem", "dua"]).parse().unwrap()];
        if house.chance.one_in(4) {
            users.push(house.chance.pick(&["bob", "cem"]).parse().unwrap());
        }
        let roles = [Role::Member, Role::Member, Role::Muted, Role::Banned, Role::Moderator];
        // Where strangers may come, many are to be.
        let removals = if house.club.is_open() { 4 } else { 2 };
        let what = match house.chance.below(7) {
            at if at < removals => What::Remove(users),
            _ => What::Set(house.chance.pick(&roles), users),
        };
        house.change_club(what);
    }

    /// Somebody's connection ends, or he gives it up, and he comes back at once, later or never.
    pub(crate) fn lose_connection(&mut self) {
        let house = &mut self.house;
        let client = house.chance.below(self.clients.len());
        let client = &mut self.clients[client];
        match house.chance.below(8) {
            0..3 => {
                house.count("hang up");
                client.hang_up(house);
            }
            3..5 => {
                house.count("hang up and come back");
                client.hang_up(house);
                client.connect(house);
            }
            // The connections of several attempts reach the server in any order.
            5 => {
                house.count("attempts overlap");
                client.connect(house);
                client.hang_up(house);
                client.connect(house);
            }
            6 => client.connect(house),
            _ => client.say_goodbye(house),
        }
    }

    /// The host puts some session out.
    fn kick(&mut self) {
        let house = &mut self.house;
        let client = house.chance.below(self.clients.len());
        let client = &self.clients[client];
        house.kick(client.key.user.clone(), client.key.tag, client.conn);
    }

    pub(crate) fn break_something(&mut self) {
        let house = &mut self.house;
        match house.chance.below(14) {
            0..5 => {
                let channels: Vec<_> = house.rooms.keys().copied().collect();
                if !channels.is_empty() {
                    house.count("channel crash");
                    let channel = house.chance.pick(&channels);
                    house.log(|| format!("channel {channel} dies"));
                    if house.rooms[&channel].state.appending() > 0 {
                        house.count("channel crash with appends in flight");
                    }
                    house.kill_channel(channel);
                }
            }
            5 => {
                let crash = house.chance.pick(&[Crash::Process, Crash::Power]);
                self.crash(crash);
            }
            6 => {
                house.count("failing sync");
                house.log(|| "the next turn of the writer fails".into());
                house.store.faults(|faults| faults.fail_next_turn = true);
            }
            7 => {
                house.count("busy reads");
                let busy = house.chance.pick(&[0, 2, 4]);
                house.store.faults(|faults| (faults.busy_read_one_in, faults.busy_load_one_in) = (busy, busy));
            }
            8 | 9 => self.kick(),
            10 | 11 => {
                let conns = house.conns();
                if !conns.is_empty() {
                    house.count("session crash");
                    let conn = house.chance.pick(&conns);
                    house.log(|| format!("the session of {conn:?} dies"));
                    house.crash_session(conn);
                }
            }
            _ => {
                let name = house.chance.pick(&ROOMS).parse().unwrap();
                if let Some((first, tail)) = house.store.extent(&name)
                    && durability_of(&name) != Durability::Memory
                {
                    house.count("trim");
                    let first = first + house.chance.any() % (tail + 2 - first);
                    house.store.forget_below(&name, first);
                    // Channels hear of it when they are rebuilt, which a sweep waits for.
                    let swept = |room: &house::Room| house.store.frame(room.state.room(), 1).is_some();
                    let swept: Vec<_> = house.rooms.iter().filter(|(_, room)| swept(room)).map(|(id, _)| *id).collect();
                    house.log(|| format!("{name} is trimmed below {first}, {swept:?} die"));
                    swept.into_iter().for_each(|id| house.kill_channel(id));
                }
            }
        }
    }

    pub(crate) fn crash(&mut self, crash: Crash) {
        let house = &mut self.house;
        house.count(if crash == Crash::Power { "loss of power" } else { "engine crash" });
        house.log(|| format!("the engine crashes: {crash:?}"));
        // Some of what was on its way arrives.
        for client in &mut self.clients {
            let bytes = house.chance.below(2_000);
            client.read(house, &mut self.memory, bytes);
            client.lose_engine();
        }
        let before = ROOMS.map(|name| house.store.extent(&name.parse().unwrap()).map_or(0, |(_, tail)| tail));
        house.kill_engine();
        house.store.crash(crash);
        house.club.engine_crashed(&house.store);
        house.store.faults(|faults| {
            faults.unfenced = house.plant == Some(Plant::UnfencedRebuild);
            faults.tells_early = house.plant == Some(Plant::AckBeforeCommit);
        });
        for (at, name) in ROOMS.iter().enumerate() {
            let tail = house.store.extent(&name.parse().unwrap()).map_or(0, |(_, tail)| tail);
            if tail < before[at] {
                assert_ne!(durability_of(name), Durability::Memory);
                house.count("records lost");
                let buffered = durability_of(name) == Durability::Buffered;
                for view in self.clients.iter_mut().map(|client| &mut client.views[at]).filter(|_| buffered) {
                    view.acked.retain(|_, (_, seq)| *seq <= tail);
                }
            }
        }
    }
}
