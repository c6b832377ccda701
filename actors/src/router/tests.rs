//! The map of who is online.

use parlor_protocol::message::{DeviceClass, Network, PRESENCE_DEVICES_MAX};

use super::*;

fn session(serial: u64, device: &str) -> Arc<Entry> {
    let since = 10 * serial;
    let presence = Presence {
        device: device.parse().unwrap(),
        device_tag: DeviceTag(serial),
        device_class: DeviceClass::Mobile,
        network: Network::Wifi,
        since,
        conn: conn(serial),
        connected: true,
        beats: [since, 0, 0, 0],
    };
    presence.into()
}

fn conn(serial: u64) -> Conn {
    Conn { arbiter: 0, slot: 0, serial }
}

fn ann() -> Name {
    "ann".parse().unwrap()
}

#[test]
fn a_user_is_online_while_one_of_his_sessions_is() {
    let (router, ann) = (Router::default(), ann());
    router.insert(&ann, session(1, "phone"));
    router.insert(&ann, session(2, "web"));
    assert_eq!((router.sessions("ann").len(), router.users_online(), router.sessions_online()), (2, 1, 2));
    router.remove(&ann, conn(1));
    assert_eq!(router.sessions("ann"), [Presence::from(&*session(2, "web"))]);
    assert_eq!(router.status("ann").since, Some(10), "there was no break");
    router.rest(&ann, conn(2));
    assert_eq!((router.conns("ann").len(), router.users_online()), (0, 1), "it may come back");
    assert!(router.is_away("ann", DeviceTag(2)) && !router.is_away("ann", DeviceTag(1)));
    router.replace(&ann, conn(2), session(3, "web"));
    assert_eq!(router.conns("ann"), [conn(3)]);
    let presence = &router.sessions("ann")[0];
    assert_eq!((presence.since, presence.beats), (20, [30, 20, 0, 0]), "it goes on");
    router.remove(&ann, conn(3));
    assert_eq!((router.sessions("ann").len(), router.users_online()), (0, 0));
    assert_eq!(router.status("ann"), Status::default());
    router.insert(&ann, session(4, "phone"));
    assert_eq!(router.status("ann").since, Some(40));
}

#[test]
fn what_a_session_writes_is_read_at_once() {
    let (router, entry) = (Router::default(), session(1, "phone"));
    router.insert(&ann(), entry.clone());
    assert!(entry.beat(99, Some(Network::Wired)));
    let presence = &router.sessions("ann")[0];
    assert_eq!((presence.beats, presence.network), ([99, 10, 0, 0], Network::Wired));
}

#[test]
fn who_changes_a_user_is_told_which_arbiters_watch_him() {
    let (router, ann) = (Router::default(), ann());
    let watching = || router.changed(&ann).numbers().collect::<Vec<_>>();
    assert_eq!(watching(), [0_u16; 0]);
    for arbiter in [0, 63, 5] {
        router.watch(&ann, arbiter);
    }
    router.watch(&ann, 5);
    router.watch(&"bob".parse().unwrap(), 7);
    assert_eq!(watching(), [0, 5, 63]);
    for arbiter in [5, 5, 63] {
        router.unwatch(&ann, arbiter);
    }
    assert_eq!(watching(), [0]);
    router.unwatch(&ann, 0);
    assert!(watching().is_empty());
    assert_eq!(router.users_online(), 0, "who is watched is not online for that");
}

#[test]
fn watches_are_counted_over_all_sessions() {
    let router = Router::default();
    assert!(router.take_watches(7, 10) && !router.take_watches(4, 10) && router.take_watches(3, 10));
    router.give_watches(8);
    assert!(router.take_watches(8, 10) && !router.take_watches(1, 10));
    assert!(!router.take_watches(usize::MAX, 10));
    assert_eq!(router.watches(), 10);
}

#[test]
fn the_newest_sessions_are_named_and_their_order_says_nothing() {
    let (router, ann) = (Router::default(), ann());
    let devices = |router: &Router| -> Vec<String> {
        router.status("ann").devices.iter().map(|status| status.device.to_string()).collect()
    };
    for serial in 1..=PRESENCE_DEVICES_MAX as u64 + 1 {
        router.insert(&ann, session(serial, &format!("d{serial}")));
    }
    assert_eq!(devices(&router), ["d2", "d3", "d4", "d5", "d6", "d7"]);
    let before = router.digest(&router.status("ann"));
    router.remove(&ann, conn(3));
    router.remove(&ann, conn(1));
    assert_ne!(router.digest(&router.status("ann")), before);
    router.insert(&ann, session(3, "d3"));
    assert_eq!(router.digest(&router.status("ann")), before, "he is as he was");
    router.rest(&ann, conn(3));
    assert_ne!(router.digest(&router.status("ann")), before, "one has no connection");
}

#[test]
fn the_host_hears_of_changes_and_of_those_that_he_missed() {
    use broadcast::error::TryRecvError;

    let (ann, limits) = (ann(), Limits { presence_changes_waiting_max: 2, ..Limits::default() });
    let router = Router::new(&limits, None);
    assert_eq!(router.changed(&ann), Arbiters::default(), "nobody listens");
    let mut changes = router.changes();
    router.insert(&ann, session(1, "phone"));
    for _ in 0..5 {
        let _ = router.changed(&ann);
    }
    assert_eq!(changes.try_recv(), Err(TryRecvError::Lagged(3)));
    assert_eq!(changes.try_recv(), Ok(PresenceChange { user: ann, sessions: 1 }));
    assert!(changes.try_recv().is_ok());
    assert_eq!(changes.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn the_host_says_who_sees_whom_and_everybody_sees_himself() {
    let hidden = MaySee::new(|asker, asked| asker == "bob" && asked == "ann");
    let router = Router::new(&Limits::default(), Some(hidden));
    assert!(router.may_see("bob", "ann") && router.may_see("ann", "ann"));
    assert!(!router.may_see("ann", "bob") && !router.hides_nobody());
    assert!(Router::default().may_see("ann", "bob"));
}
