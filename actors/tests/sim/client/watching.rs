//! Who is in a room, as a client is told: all of it, then what changes of it, each change once.

use parlor_protocol::{
    Extensions,
    message::{RoomPresence, WatchRoom},
};

use super::{Ask, Client, Standing};
use crate::house::House;

impl Client {
    /// Wants to be told who is in a room, or no more.
    pub fn watch(&mut self, house: &mut House, at: usize, watch: bool) {
        let under_way = self.waiting.values().any(|ask| matches!(ask, Ask::Watch(room, _) if *room == at));
        let view = &self.views[at];
        if view.standing != Standing::In || self.closing || under_way || view.present.is_some() == watch {
            return;
        }
        let watch_room = WatchRoom { room: view.number, watch, extensions: Extensions::default() };
        self.send(house, Some(Ask::Watch(at, watch)), &watch_room);
    }

    pub(super) fn on_present(&mut self, at: usize, told: &RoomPresence<'_>, asked: bool) {
        let view = &mut self.views[at];
        let name = &view.name;
        assert!(view.is_in() && told.named, "{name}: {told:?} for one who is not there");
        assert_eq!(view.present.is_none(), asked, "{name}: {told:?} is told to who watches, and answers who did not");
        let present = view.present.get_or_insert_default();
        if told.all {
            present.clear();
        }
        for user in &told.came.0 {
            assert!(present.insert((*user).to_owned()), "{name}: {user} has come twice: {told:?}");
        }
        for user in &told.went.0 {
            assert!(present.remove(*user), "{name}: {user} went, and was not there: {told:?}");
        }
        assert!(!asked || told.all, "{name}: {told:?} answers a question");
        assert_eq!(present.len(), told.count as usize, "{name}: {told:?} leaves {present:?}");
    }
}
