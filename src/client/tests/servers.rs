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

#[test]
fn attempts_start_one_behind_the_other_and_the_first_that_is_made_wins() {
    let mut servers = of(&THREE);
    servers.begin(ms(0));
    let [(first, to)] = connects(&mut servers)[..] else { panic!("one at first") };
    assert_eq!((to, servers.timeout(ms(0))), (address(1), ms(100)));
    servers.handle_timeout(ms(99));
    assert_eq!(connects(&mut servers), []);
    servers.handle_timeout(ms(100));
    let [(second, to)] = connects(&mut servers)[..] else { panic!("the next one") };
    assert_eq!(to, address(2));
    // Its failure lets the third start at once.
    servers.handle_unreachable(ms(110), second, refused());
    let [(third, to)] = connects(&mut servers)[..] else { panic!("the third one") };
    assert_eq!(to, address(3));
    assert!(servers.handle_connected(ms(150), third));
    assert!(!servers.handle_connected(ms(151), first), "too late");
    servers.on_welcome();
    assert_eq!((servers.name(), servers.last()), (THREE[2].to_owned(), Some(address(3))));
    // Next time: the last one, then the nearest of the others; the second was not measured.
    servers.begin(ms(1_000));
    for at in 11..14 {
        servers.handle_timeout(ms(at * 100));
    }
    let order: Vec<_> = connects(&mut servers).into_iter().map(|(_, to)| to).collect();
    assert_eq!(order, [address(3), address(1), address(2)]);
}

#[test]
fn the_nearest_is_preferred_once_it_is_known() {
    let mut servers = of(&THREE);
    for (to, took) in [(1, 90), (2, 30), (3, 60)] {
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
    servers.begin(ms(0));
    for at in 1..4 {
        servers.handle_timeout(ms(at * 100));
    }
    let order: Vec<_> = connects(&mut servers).into_iter().map(|(_, to)| to).collect();
    assert_eq!(order, [address(3), address(2), address(1)], "the last one first");
}

#[test]
fn a_name_stands_for_all_its_addresses() {
    let mut servers = of(&["chat.example:1", "10.0.0.9:1"]);
    servers.begin(ms(0));
    assert_eq!(servers.poll(), Some(Step::Resolve(0, "chat.example:1".into())));
    let [(nine, _)] = connects(&mut servers)[..] else { panic!("the one that is known") };
    servers.handle_resolved(ms(10), 0, Ok(vec![address(1), address(2)]));
    servers.handle_unreachable(ms(20), nine, refused());
    let [(one, to)] = connects(&mut servers)[..] else { panic!("the first of the name") };
    assert_eq!(to, address(1));
    servers.handle_unreachable(ms(30), one, refused());
    let [(two, to)] = connects(&mut servers)[..] else { panic!("the second of the name") };
    assert_eq!(to, address(2));
    assert!(servers.is_over().is_none());
    servers.handle_unreachable(ms(40), two, refused());
    assert_eq!(servers.is_over().unwrap().0, "chat.example:1");
    // Looked up anew, it has others. Until that is known the old ones serve.
    servers.begin(ms(50));
    servers.handle_resolved(ms(50), 0, Ok(vec![address(3)]));
    servers.handle_timeout(ms(200));
    let order: Vec<_> = connects(&mut servers).into_iter().map(|(_, to)| to).collect();
    assert_eq!(order, [address(1), address(3)]);
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
