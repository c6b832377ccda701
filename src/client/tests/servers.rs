//! Which server is tried when.

use std::{io, net::SocketAddr};

use super::*;
use crate::client::servers::{Attempt, Servers, Step};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 1))
}

fn of(names: &[&str]) -> Servers {
    Servers::new(names.iter().map(|name| (*name).to_owned()).collect(), ms(5_000), None)
}

const THREE: [&str; 3] = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"];

fn connects(servers: &mut Servers) -> Vec<(Attempt, SocketAddr)> {
    let steps = std::iter::from_fn(|| servers.poll());
    steps.filter_map(|step| if let Step::Connect(attempt, to) = step { Some((attempt, to)) } else { None }).collect()
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

/// Begins a round, and what is tried in it if nothing answers.
fn order(servers: &mut Servers, now: u64) -> Vec<SocketAddr> {
    servers.begin(ms(now));
    for at in 1..4 {
        servers.handle_timeout(ms(now + at * 100));
    }
    connects(servers).into_iter().map(|(_, to)| to).collect()
}

#[test]
fn attempts_start_together_at_first_and_then_one_behind_the_other() {
    let mut servers = of(&THREE);
    servers.begin(ms(0));
    let [(first, _), (second, _), (third, to)] = connects(&mut servers)[..] else {
        panic!("nobody knows which is near")
    };
    servers.handle_unreachable(ms(10), second, refused());
    assert!(servers.handle_connected(ms(50), third));
    assert!(!servers.handle_connected(ms(51), first), "too late");
    servers.on_welcome();
    assert_eq!((servers.name(), servers.last(), to), (THREE[2].to_owned(), Some(address(3)), address(3)));
    // Next time: the last one, then the nearest of the others; the second was not measured.
    servers.begin(ms(1_000));
    let [(last, to)] = connects(&mut servers)[..] else { panic!("one at first") };
    assert_eq!((to, servers.timeout(ms(1_000))), (address(3), ms(1_100)));
    servers.handle_timeout(ms(1_099));
    assert_eq!(connects(&mut servers), []);
    servers.handle_timeout(ms(1_100));
    let [(_, to)] = connects(&mut servers)[..] else { panic!("the next one") };
    assert_eq!(to, address(1));
    // A failure lets the third start at once.
    servers.handle_unreachable(ms(1_110), last, refused());
    let [(_, to)] = connects(&mut servers)[..] else { panic!("the third one") };
    assert_eq!(to, address(2));
}

#[test]
fn the_last_one_makes_room_for_one_that_is_known_to_be_much_nearer() {
    #[track_caller]
    fn check(took: [u64; 3], want: [u8; 3]) {
        let mut servers = of(&THREE);
        for (to, took) in (1..).zip(took) {
            servers.begin(ms(0));
            let mut now = 0;
            loop {
                let mut started = connects(&mut servers);
                if let Some((attempt, _)) = started.iter().find(|(_, started)| *started == address(to)) {
                    servers.handle_connected(ms(now + took), *attempt);
                    break;
                }
                now += 1;
                for (attempt, _) in started.drain(..) {
                    servers.handle_unreachable(ms(now), attempt, refused());
                }
            }
            servers.on_welcome();
        }
        assert_eq!(order(&mut servers, 0), want.map(address), "{took:?}");
    }
    check([90, 31, 60], [3, 2, 1]);
    check([90, 29, 60], [2, 3, 1]);
    check([5, 29, 60], [1, 2, 3]);
}

#[test]
fn a_name_stands_for_all_its_addresses() {
    let mut servers = of(&["chat.example:1", "10.0.0.9:1"]);
    servers.begin(ms(0));
    assert_eq!(servers.poll(), Some(Step::Resolve(0, "chat.example:1".into())));
    let [(nine, _)] = connects(&mut servers)[..] else { panic!("the one that is known") };
    servers.handle_resolved(ms(10), 0, Ok(vec![address(1), address(2)]));
    let [(one, first), (two, second)] = connects(&mut servers)[..] else { panic!("both of the name") };
    assert_eq!((first, second), (address(1), address(2)));
    servers.handle_unreachable(ms(20), nine, refused());
    servers.handle_unreachable(ms(30), one, refused());
    assert!(servers.is_over().is_none());
    servers.handle_unreachable(ms(40), two, refused());
    assert_eq!(servers.is_over().unwrap().0, "chat.example:1");
    // Looked up anew, it has others. Until that is known the old ones serve.
    servers.begin(ms(50));
    assert_eq!(connects(&mut servers).len(), 3);
    servers.handle_resolved(ms(50), 0, Ok(vec![address(3)]));
    let [(three, to)] = connects(&mut servers)[..] else { panic!("what is new") };
    assert_eq!(to, address(3));
    // What it asks for counts for the whole name.
    servers.handle_connected(ms(60), three);
    servers.on_welcome();
    servers.on_put_off(ms(9_000));
    servers.begin(ms(70));
    servers.handle_resolved(ms(70), 0, Ok(vec![address(3), address(4)]));
    servers.handle_timeout(ms(170));
    let to: Vec<_> = connects(&mut servers).into_iter().map(|(_, to)| to).collect();
    assert_eq!(to, [address(9), address(4)], "it is new and may be another");
}

#[test]
fn what_takes_too_long_is_given_up() {
    let mut servers = of(&["chat.example:1", "10.0.0.9:1"]);
    servers.begin(ms(0));
    let steps: Vec<_> = std::iter::from_fn(|| servers.poll()).collect();
    assert_eq!(steps.len(), 2);
    servers.handle_timeout(ms(4_999));
    assert!(servers.is_over().is_none());
    assert_eq!(servers.timeout(ms(4_999)), ms(5_000));
    servers.handle_timeout(ms(5_000));
    assert_eq!(servers.poll(), Some(Step::GiveUp(1)));
    assert_eq!(servers.is_over().unwrap().1.kind(), io::ErrorKind::TimedOut);
    // An answer that comes now means nothing.
    servers.handle_resolved(ms(5_001), 0, Ok(vec![address(1)]));
    assert_eq!(servers.poll(), None);
}

#[test]
fn no_more_than_four_are_under_way() {
    let names: Vec<_> = (1..=9).map(|last| address(last).to_string()).collect();
    let mut servers = Servers::new(names, ms(5_000), Some(address(7)));
    servers.begin(ms(0));
    for at in 1..40 {
        servers.handle_timeout(ms(at * 100));
    }
    let started = connects(&mut servers);
    let order: Vec<_> = started.iter().map(|(_, to)| *to).collect();
    assert_eq!(order, [address(7), address(1), address(2), address(3)], "the one of an earlier run first");
    assert_eq!(servers.timeout(ms(4_000)), servers.timeout(ms(4_100)), "nothing is due before one has failed");
    servers.handle_unreachable(ms(4_100), started[1].0, refused());
    assert_eq!(connects(&mut servers).len(), 1);
}

/// Connected to the first of two, and closed there with this code and 3 s to wait. When the client dials again, and where.
fn dials_after(code: Code) -> (u64, SocketAddr) {
    let mut lab = Lab::with(|config| config.servers = THREE[..2].iter().map(|name| (*name).to_owned()).collect());
    lab.connect(false);
    lab.effects();
    lab.hear(0, Incoming::Close(message::Close { code, retry_after_ms: 3_000, message: "x", extensions: ext() }));
    loop {
        for effect in lab.effects() {
            if let Effect::Dial(_, to) = effect {
                return (lab.ms, to);
            }
        }
        lab.at(lab.ms + 1);
    }
}

#[test]
fn a_server_that_goes_away_is_passed_over_as_long_as_it_says() {
    let (ms, to) = dials_after(Code::GoingAway);
    assert!(ms <= 1_001, "{ms} ms");
    assert_eq!(to, address(2));
    let (_, to) = dials_after(Code::SlowReader);
    assert_eq!(to, address(1), "the last that worked");
}

#[test]
fn one_that_says_no_welcome_makes_room_for_the_next() {
    let mut lab = Lab::with(|config| {
        config.servers = THREE[..2].iter().map(|name| (*name).to_owned()).collect();
    });
    lab.connected();
    lab.at(5_000);
    let effects = lab.effects();
    assert!(matches!(effects.last(), Some(Effect::Dial(_, to)) if *to == address(2)), "{effects:?}");
    lab.connect(false);
    assert!(lab.state.is_online());
}
