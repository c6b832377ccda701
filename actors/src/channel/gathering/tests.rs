//! Who is in a room, in virtual time: each step as the users who are here, and what is told.

use super::*;

const WINDOW: u64 = 1_000;

struct Lab {
    gathering: Gathering,
    now: u64,
    here: Vec<&'static str>,
    away: Vec<&'static str>,
    members: u64,
}

fn key(user: &str) -> DeviceKey {
    DeviceKey { user: user.parse().unwrap(), tag: DeviceTag(1) }
}

fn conn(arbiter: u16) -> Conn {
    Conn { arbiter, slot: 0, serial: 1 }
}

fn lab(here: &[&'static str], named_max: u32) -> Lab {
    let present = here.iter().map(|user| user.parse().unwrap()).collect();
    let mut gathering = Gathering::new(2, WINDOW, named_max, 0, present);
    gathering.on_watch(conn(0), 9).unwrap();
    Lab { gathering, now: 0, here: here.to_vec(), away: Vec::new(), members: 0 }
}

fn line(Tell { arbiter, to, told, .. }: Tell) -> String {
    let Told { all, named, count, came, went } = &*told;
    let names = |users: &[Name]| {
        let mut users: Vec<&str> = users.iter().map(|user| &**user).collect();
        users.sort_unstable();
        users.join(" ")
    };
    let what = if *all { "all" } else { "changes" };
    let names = if *named { format!(" +{} -{}", names(came), names(went)) } else { String::new() };
    let whom = match to {
        To::Asker(_, request) => format!("#{request}"),
        To::Everybody => "everybody".into(),
        To::PassedOver => "passed over".into(),
    };
    format!("{arbiter} {whom}: {what} {count}{names}")
}

impl Lab {
    fn comes(&mut self, user: &'static str) {
        self.here.push(user);
        self.gathering.on_changed(&user.parse().unwrap());
    }

    fn goes(&mut self, user: &'static str) {
        self.here.retain(|here| *here != user);
        self.gathering.on_detached(self.now, &key(user));
    }

    /// A window later, this is told.
    #[track_caller]
    fn settles(&mut self, want: &[&str]) {
        self.now += WINDOW;
        let here = self.here.clone();
        let is_here = |user: &Name| here.contains(&&**user);
        let mut asked = self.gathering.leaving(is_here);
        asked.retain(|device| self.away.contains(&&*device.user));
        let told = self.gathering.settle(self.now, &asked, is_here, self.members);
        assert_eq!(told.into_iter().map(line).collect::<Vec<_>>(), want, "at {}", self.now);
    }
}

#[test]
fn who_comes_and_goes_is_told_by_name() {
    let mut lab = lab(&["ann", "bob"], 10);
    let all = lab.gathering.on_watch(conn(1), 5).map(line);
    assert_eq!(all.as_deref(), Some("1 #5: all 2 +ann bob -"));
    lab.settles(&[]);
    lab.comes("cid");
    lab.goes("bob");
    assert_eq!((lab.gathering.wants_timer(), lab.gathering.wants_timer()), (Some(WINDOW), None));
    lab.settles(&["0 everybody: changes 2 +cid -bob", "1 everybody: changes 2 +cid -bob"]);
    assert_eq!(lab.gathering.wants_timer(), None, "there is nothing to do");
}

#[test]
fn who_goes_and_comes_back_within_a_window_has_not_gone() {
    let mut lab = lab(&["ann"], 10);
    lab.goes("ann");
    lab.now += 500;
    lab.comes("ann");
    lab.settles(&[]);
    // The window's end falls in between.
    lab.comes("bob");
    lab.now += 999;
    lab.goes("ann");
    lab.now -= 999;
    lab.settles(&["0 everybody: changes 2 +bob -"]);
    assert_eq!(lab.gathering.wants_timer(), Some(WINDOW), "she has still to be looked at");
    lab.comes("ann");
    lab.settles(&[]);
    // And one whom nobody was told of.
    lab.comes("cid");
    lab.goes("cid");
    lab.settles(&[]);
    assert_eq!(lab.gathering.wants_timer(), None);
}

#[test]
fn a_session_that_may_come_back_is_there_and_has_time_to_join_again() {
    let mut lab = lab(&["ann", "bob"], 10);
    lab.away = vec!["ann"];
    lab.goes("ann");
    for _ in 0..5 {
        lab.settles(&[]);
        assert_eq!(lab.gathering.wants_timer(), Some(WINDOW));
    }
    // Its client is back, and joins just in time.
    lab.away.clear();
    lab.settles(&[]);
    lab.comes("ann");
    lab.settles(&[]);
    // It ends, or does not join again.
    lab.away = vec!["ann"];
    lab.goes("ann");
    lab.settles(&[]);
    lab.away.clear();
    lab.settles(&[]);
    lab.settles(&["0 everybody: changes 1 + -ann"]);
}

#[test]
fn a_large_room_is_counted_until_it_has_shrunk_by_a_quarter() {
    let mut lab = lab(&["a", "b", "c", "d"], 4);
    lab.comes("e");
    lab.settles(&["0 everybody: all 5"]);
    lab.comes("f");
    lab.goes("e");
    lab.settles(&[]);
    lab.goes("f");
    lab.settles(&["0 everybody: all 4"]);
    lab.goes("d");
    lab.settles(&["0 everybody: all 3 +a b c -"]);
    lab.members = 5;
    lab.comes("d");
    lab.settles(&["0 everybody: all 4"]);
    let all = lab.gathering.on_watch(conn(0), 5).map(line);
    assert_eq!(all.as_deref(), Some("0 #5: all 4"));
}

#[test]
fn who_was_passed_over_is_told_all_of_it_behind_what_changed() {
    let mut lab = lab(&["ann"], 10);
    lab.gathering.on_again(0);
    assert_eq!(lab.gathering.wants_timer(), Some(WINDOW));
    lab.comes("bob");
    lab.settles(&["0 everybody: changes 2 +bob -", "0 passed over: all 2 +ann bob -"]);
    lab.settles(&[]);
}

#[test]
fn an_arbiter_that_asked_anew_is_still_told() {
    let mut lab = lab(&["ann"], 10);
    let older = lab.gathering.on_watch(conn(0), 1).unwrap().watch;
    let newer = lab.gathering.on_watch(conn(0), 2).unwrap().watch;
    lab.gathering.on_unwatch(0, Some(older));
    assert!(!lab.gathering.is_idle());
    lab.gathering.on_unwatch(0, Some(newer));
    assert!(lab.gathering.is_idle());
    lab.gathering.on_watch(conn(0), 3);
    lab.gathering.on_unwatch(0, None);
    assert!(lab.gathering.is_idle());
    assert_eq!(lab.gathering.wants_timer(), Some(WINDOW), "it is forgotten then");
    assert_eq!(lab.gathering.on_watch(conn(9), 1), None, "there is no such arbiter");
}
