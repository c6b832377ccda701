//! The shell of a channel.

use std::sync::Arc;

use parlor_actors::{
    channel::{self, state::Turn},
    members::Member,
    message::{Conn, FromChannel},
    port::{Answer, Append, Marks, Store, StoreError},
};
use parlor_protocol::RoomNumber;

use super::{CLUB_NUMBER, ChannelId, Hears, House, Line, Plant, Said, ToRelay, ToSupervisor, home};

impl House {
    pub(super) fn channel_turn(&mut self, id: ChannelId) -> bool {
        let now = self.now();
        let Some(room) = self.rooms.get_mut(&id) else { return false };
        let Some(input) = room.mailbox.pop_front() else { return false };
        if let Some(log) = &self.log {
            log.lock().push(format!("channel {id} handles {input:?}"));
        }
        let tail = room.state.tail();
        if room.state.room() == CLUB_NUMBER {
            self.note_input(tail, &input);
        }
        let Some(room) = self.rooms.get_mut(&id) else { return false };
        room.state.handle(now, input);
        self.run_channel(id);
        true
    }

    pub(super) fn run_channel(&mut self, id: ChannelId) {
        use channel::state::{Effect, Input};
        let mut stops = false;
        while let Some(room) = self.rooms.get_mut(&id)
            && let Some(effect) = room.state.poll()
        {
            let number = room.state.room();
            let ears = self.ears.clone();
            match effect {
                Effect::Sleep(rest) => self.rest(id, rest),
                Effect::Presence(effect) => self.gather(id, effect),
                Effect::Relay { arbiter, news } => self.news(id, number, arbiter, news),
                Effect::Append(Turn { first, frames, records, rewrites, place }) => {
                    let state = &room.state;
                    let append = Append {
                        room: number,
                        generation: state.generation(),
                        epoch: state.epoch(),
                        durability: state.durability(),
                        first,
                        frames,
                        records,
                        rewrites,
                        place,
                        commits: Arc::new(Hears { ears, arbiter: home(number) }),
                    };
                    let arbiter = &mut self.arbiters[home(number)];
                    if arbiter.appends.is_empty() {
                        arbiter.mailbox.push_back(ToRelay::HandOver);
                    }
                    arbiter.appends.push(append);
                }
                Effect::Stop => stops = true,
                Effect::EndTurn => room.mailbox.push_back(Input::EndOfTurn),
                Effect::Read(new) => {
                    let reply = move |records| {
                        ears.lock().push(Said::ToChannel(id, Input::Read { id: new.id, records }));
                    };
                    self.store.read(new.read, Box::new(reply));
                }
                Effect::LoadMarks(user) => {
                    let name = user.clone();
                    let reply = move |marks: Result<Vec<Marks>, StoreError>| {
                        let marks = marks.map(|marks| marks[0]);
                        ears.lock().push(Said::ToChannel(id, Input::Marks { user, marks }));
                    };
                    self.store.marks(name, vec![number], Box::new(reply));
                }
                Effect::LoadRoomMarks(fetch, users_max) => {
                    let reply = move |found| ears.lock().push(Said::ToChannel(id, Input::RoomMarks { fetch, found }));
                    self.store.room_marks(number, users_max, Box::new(reply));
                }
                Effect::SaveMarksIn(_) => self.saves_due.push(id),
                Effect::SaveMarks(save) => {
                    let reply = move |stored| ears.lock().push(Said::ToChannel(id, Input::MarksSaved(stored)));
                    self.store.save_marks(save, Box::new(reply));
                }
                Effect::TellUser { user, except, frame } => {
                    let is_his = |(conn, line): &&(Conn, Line)| line.device.user == user && Some(*conn) != except;
                    let conns: Vec<Conn> = self.lines.iter().filter(is_his).map(|(conn, _)| *conn).collect();
                    for conn in conns {
                        let news = FromChannel::Notice { conns: vec![conn], frame: frame.clone() };
                        self.news(id, number, conn.arbiter, news);
                    }
                }
                Effect::TellHost(reply, standing) => reply.give(standing),
                Effect::ReadTarget { id: read, seq } => {
                    let reply = move |target| {
                        ears.lock().push(Said::ToChannel(id, Input::Target { id: read, target }));
                    };
                    self.store.target(number, seq, Box::new(reply));
                }
                Effect::LoadAnswers(device) => {
                    let key = device.clone();
                    let forgets = self.plant == Some(Plant::DoubleAppend);
                    let reply = move |answers: Result<Vec<(u8, Answer)>, StoreError>| {
                        let answers = answers.map(|answers| if forgets { Vec::new() } else { answers });
                        ears.lock().push(Said::ToChannel(id, Input::Answers { device, answers }));
                    };
                    self.store.answers(number, key, Box::new(reply));
                }
                Effect::Trim(trim) => {
                    let reply = move |trimmed| ears.lock().push(Said::ToChannel(id, Input::Trimmed(trimmed)));
                    self.store.trim(trim, Box::new(reply));
                }
                Effect::LoadRights(device) => {
                    let user = device.user.clone();
                    let has_past = self.plant == Some(Plant::PastShown);
                    let reply = move |mut member: Result<Option<Member>, StoreError>| {
                        if let Ok(Some(member)) = &mut member
                            && has_past
                        {
                            member.since = 1;
                        }
                        ears.lock().push(Said::ToChannel(id, Input::Rights { device, member }));
                    };
                    self.store.member(number, user, Box::new(reply));
                }
                Effect::Told(id) => self.office.push_back(ToSupervisor::Told(id)),
            }
        }
        if stops {
            self.kill_channel(id);
        }
        self.listen();
    }

    /// A channel speaks to a relay: the place where planted bugs get in.
    pub(super) fn news(&mut self, id: ChannelId, room: RoomNumber, arbiter: u16, mut news: FromChannel) {
        let again = self.plant_news(room, &mut news);
        if room == CLUB_NUMBER {
            self.note_news(&news);
        }
        let channel = matches!(news, FromChannel::Attach(_)).then_some(id);
        let mailbox = &mut self.arbiters[usize::from(arbiter)].mailbox;
        mailbox.push_back(ToRelay::News { room, news, channel });
        if let Some(news) = again {
            mailbox.push_back(ToRelay::News { room, news, channel: None });
        }
    }
}
