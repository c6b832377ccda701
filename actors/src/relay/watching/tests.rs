//! Who is told what, in virtual time. Users are online or not, or on another device.

use std::collections::BTreeMap;

use super::*;

const WINDOW: u64 = 1_000;

/// An arbiter, the users as they are, and the sessions that do not read.
struct Lab {
    watching: Watching,
    now: u64,
    users: BTreeMap<&'static str, Seen>,
    slow: Vec<u64>,
}

const OFFLINE: Seen = Seen { digest: 0, online: false };
const PHONE: Seen = Seen { digest: 1, online: true };
const WEB: Seen = Seen { digest: 2, online: true };

fn conn(serial: u64) -> Conn {
    Conn { arbiter: 0, slot: 0, serial }
}

fn name(user: &str) -> Name {
    user.parse().unwrap()
}

fn lab() -> Lab {
    Lab { watching: Watching::new(WINDOW), now: 0, users: BTreeMap::new(), slow: Vec::new() }
}

impl Lab {
    fn watch(&mut self, serial: u64, user: &'static str) -> bool {
        let seen = self.users.get(user).copied().unwrap_or(OFFLINE);
        self.watching.on_watch(self.now, conn(serial), &name("me"), &name(user), seen)
    }

    /// A user is so from now on, and the arbiter hears of it.
    fn becomes(&mut self, user: &'static str, seen: Seen) {
        self.users.insert(user, seen);
        self.watching.on_seen(self.now, &name(user), seen);
    }

    /// So much later, these watchers are told of these users.
    #[track_caller]
    fn after(&mut self, ms: u64, want: &[(u64, &[&str])]) {
        self.now += ms;
        let (slow, users) = (&self.slow, &self.users);
        let mut told = Vec::new();
        for conn in self.watching.due(self.now, |conn| !slow.contains(&conn.serial)) {
            let look = |user: &Name| users.get(&**user).copied().unwrap_or(OFFLINE);
            let mut names: Vec<String> =
                self.watching.take(self.now, conn, look).iter().map(ToString::to_string).collect();
            names.sort();
            if !names.is_empty() {
                told.push((conn.serial, names));
            }
        }
        told.sort();
        let want: Vec<(u64, Vec<String>)> =
            want.iter().map(|(serial, names)| (*serial, names.iter().map(ToString::to_string).collect())).collect();
        assert_eq!(told, want, "at {}", self.now);
    }

    #[track_caller]
    fn quiet(&mut self) {
        for _ in 0..10 {
            self.after(WINDOW / 2, &[]);
        }
    }
}

#[test]
fn changes_are_gathered_and_told_once() {
    let mut lab = lab();
    for user in ["ann", "bob", "cid"] {
        assert!(lab.watch(1, user));
    }
    assert!(lab.watch(2, "ann") && !lab.watch(2, "ann"));
    lab.becomes("ann", PHONE);
    lab.after(400, &[]);
    lab.becomes("bob", PHONE);
    lab.becomes("dan", PHONE);
    lab.after(599, &[]);
    lab.after(1, &[(1, &["ann", "bob"]), (2, &["ann"])]);
    lab.quiet();
}

#[test]
fn a_session_is_told_at_most_once_in_a_window_however_much_happens() {
    let mut lab = lab();
    lab.watch(1, "ann");
    let mut told = Vec::new();
    for step in 0..100_u64 {
        lab.becomes("ann", Seen { digest: step + 1, online: true });
        lab.now += 70;
        for conn in lab.watching.due(lab.now, |_| true) {
            let seen = lab.users["ann"];
            if !lab.watching.take(lab.now, conn, |_| seen).is_empty() {
                told.push(lab.now);
            }
        }
    }
    assert!(told.len() >= 6 && told.windows(2).all(|pair| pair[1] - pair[0] >= WINDOW), "{told:?}");
}

#[test]
fn who_goes_and_comes_back_within_a_window_has_not_gone() {
    for before in [1, 500, 999] {
        let mut lab = lab();
        lab.users.insert("ann", PHONE);
        lab.watch(1, "ann");
        lab.watch(1, "bob");
        // Another change has the frame leave in between.
        lab.becomes("bob", PHONE);
        lab.after(before, &[]);
        lab.becomes("ann", OFFLINE);
        lab.after(WINDOW - before, &[(1, &["bob"])]);
        lab.after(before - 1, &[]);
        lab.becomes("ann", PHONE);
        lab.quiet();
    }
}

#[test]
fn who_stays_away_is_told_as_gone() {
    let mut lab = lab();
    lab.users.insert("ann", PHONE);
    lab.watch(1, "ann");
    lab.becomes("ann", OFFLINE);
    lab.after(WINDOW, &[(1, &["ann"])]);
    lab.becomes("ann", WEB);
    lab.after(WINDOW, &[(1, &["ann"])]);
    lab.quiet();
}

#[test]
fn a_slow_reader_gets_the_newest_state_once() {
    let mut lab = lab();
    lab.watch(1, "ann");
    lab.watch(1, "bob");
    lab.watch(2, "ann");
    lab.slow.push(1);
    for seen in [PHONE, WEB, PHONE] {
        lab.becomes("ann", seen);
        lab.becomes("bob", seen);
        lab.after(WINDOW, &[(2, &["ann"])]);
    }
    lab.becomes("bob", OFFLINE);
    lab.after(5 * WINDOW, &[]);
    lab.slow.clear();
    lab.after(0, &[(1, &["ann"])]); // Bob is as it knew him.
    lab.quiet();
}

#[test]
fn what_was_seen_before_it_was_heard_of_is_not_told_wrongly() {
    let mut lab = lab();
    lab.watch(1, "ann");
    lab.watch(2, "ann");
    lab.becomes("ann", PHONE);
    lab.after(500, &[]);
    // She is on another device, which a third watcher sees before the arbiter hears of it, and then back.
    lab.users.insert("ann", WEB);
    lab.watch(3, "ann");
    lab.becomes("ann", PHONE);
    lab.after(500, &[(1, &["ann"]), (2, &["ann"])]);
    lab.after(500, &[(3, &["ann"])]);
    lab.quiet();
    // The same with a look at a frame's time.
    lab.becomes("ann", OFFLINE);
    lab.becomes("ann", WEB);
    lab.users.insert("ann", PHONE);
    lab.quiet();
    lab.becomes("ann", PHONE);
    lab.quiet();
}

#[test]
fn a_watcher_that_joins_late_is_told_what_it_does_not_know() {
    let mut lab = lab();
    lab.watch(1, "ann");
    lab.becomes("ann", PHONE);
    lab.after(500, &[]);
    lab.watch(2, "ann");
    lab.becomes("ann", OFFLINE);
    // The first never knew her online; the second does, and she may be back at once.
    lab.after(500, &[]);
    lab.after(500, &[(2, &["ann"])]);
    lab.quiet();
}

#[test]
fn who_ends_is_nowhere_any_more() {
    let mut lab = lab();
    for (serial, user) in [(1, "ann"), (1, "bob"), (2, "ann"), (3, "cid")] {
        lab.watch(serial, user);
    }
    lab.becomes("ann", PHONE);
    assert_eq!(lab.watching.on_unwatch(conn(1), &name("bob")), Some(true), "nobody else watches him");
    assert_eq!(lab.watching.on_unwatch(conn(1), &name("bob")), None);
    assert_eq!(lab.watching.on_gone(conn(1)), (1, vec![]));
    assert_eq!(lab.watching.on_gone(conn(1)), (0, vec![]));
    lab.after(WINDOW, &[(2, &["ann"])]);
    assert_eq!(lab.watching.on_gone(conn(2)), (1, vec![name("ann")]));
    assert_eq!(lab.watching.on_unwatch(conn(3), &name("cid")), Some(true));
    assert!(lab.watching.is_empty());
    lab.becomes("ann", OFFLINE);
    lab.quiet();
}

#[test]
fn it_is_known_before_how_many_users_a_session_would_watch() {
    let mut lab = lab();
    for user in ["ann", "bob", "cid"] {
        lab.watch(1, user);
    }
    let names = |users: &[&str]| users.iter().map(|user| name(user)).collect::<Vec<_>>();
    for (add, remove, want) in [
        (&[][..], &[][..], (3, 0)),
        (&["dan", "dan", "ann"], &[], (4, 1)),
        (&["dan"], &["ann", "ann", "eve"], (3, 1)),
        (&["ann"], &["ann"], (3, 1)),
    ] {
        assert_eq!(lab.watching.would_watch(conn(1), &names(add), &names(remove)), want, "{add:?} {remove:?}");
    }
    assert_eq!(lab.watching.would_watch(conn(9), &names(&["ann", "bob", "ann"]), &names(&["ann"])), (2, 2));
}
