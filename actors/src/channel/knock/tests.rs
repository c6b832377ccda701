//! A join that comes to a channel that has ended.

use std::{
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_rt::{Arbiter, System};
use bytes::Bytes;
use parlor_protocol::{
    DeviceTag, Token,
    message::{DeviceClass, JoinFrom, Network},
};
use tokio::sync::oneshot;

use super::*;
use crate::{
    context::Shared,
    fleet::Fleet,
    limits::Limits,
    message::Conn,
    outbound::{Outbound, Wire},
    pools::Pools,
    port::{DeviceKey, RoomOptions},
    relay::{
        Local,
        link::Hello,
        state::{Asks, Pending},
    },
    router::Router,
    session::inbound::{Inbound, Stop},
    supervisor::{ToSupervisor, Waiter},
    testkit::{MemStore, TestClock},
};

/// The first connection of the only arbiter.
const CONN: Conn = Conn { arbiter: 0, slot: 0, serial: 1 };

/// A client that neither reads nor says anything.
struct Mute;

impl Wire for Mute {
    fn poll_write(&self, _: &mut Context<'_>, _: &mut Outbound) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl Inbound for Mute {
    fn poll_frames(&mut self, _: &mut Context<'_>) -> Poll<Result<Bytes, Stop>> {
        Poll::Pending
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn half_close(self: Box<Self>) {}
}

async fn on<T: Send + 'static>(fleet: &Fleet, run: impl FnOnce(&Local) -> T + Send + 'static) -> T {
    let (tell, told) = oneshot::channel();
    fleet.run_on(0, move |local| drop(tell.send(run(local))));
    told.await.unwrap()
}

fn connect(local: &Local) {
    let hello = Hello {
        request: 0,
        version: 1,
        user: "ann".parse().unwrap(),
        device: "phone".parse().unwrap(),
        device_class: DeviceClass::Mobile,
        network: Network::Wifi,
        token: Token([0; 16]),
        resume: None,
        attempt: 1,
    };
    local.connect(hello, Rc::new(Mute), Box::new(Mute));
}

/// Loads the room; its number and its channel.
fn resolve(local: &Local) -> oneshot::Receiver<(RoomNumber, Addr<Channel>)> {
    let (tell, told) = oneshot::channel();
    let supervisor = local.supervisor().clone();
    let name: parlor_protocol::Name = "room".parse().unwrap();
    let then = supervisor.clone();
    let channel = move |channel: Result<Addr<Channel>, _>| {
        let reply = move |room: Result<RoomNumber, _>| drop(tell.send((room.unwrap(), channel.unwrap())));
        let name = "room".parse().unwrap();
        then.do_send(ToSupervisor::Resolve { name, create: None, waiter: Waiter::Host(Box::new(reply)) });
    };
    let waiter = Waiter::Channel(Box::new(channel));
    supervisor.do_send(ToSupervisor::Resolve { name, create: Some(RoomOptions::default()), waiter });
    told
}

#[test]
fn a_join_that_no_channel_gets_is_refused() {
    let (store, clock) = (MemStore::new(1, 100), TestClock::at(1_000_000));
    let limits = Arc::new(Limits { room_idle_ms: 10, ..Limits::default() });
    let shared = Arc::new(Shared {
        store: store.clone(),
        clock: clock.clone(),
        uploads: limits.uploads(),
        pools: Pools::new(&limits),
        limits,
        beats: Arc::default(),
        tiers: Arc::default(),
        rates: Arc::default(),
        word: Arc::default(),
        create_at_join: None,
        session_policy: Default::default(),
        router: Router::default(),
    });
    let _served = store.serve();
    System::new().block_on(async {
        let fleet = Fleet::start(vec![Arbiter::current()], shared);
        let resolved = on(&fleet, |local| {
            connect(local);
            resolve(local)
        });
        let (room, channel) = resolved.await.await.unwrap();
        let patience = Duration::from_secs(20);
        let asleep = async {
            while fleet.census().await.loaded > 0 {
                clock.advance(3);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(patience, asleep).await.expect("nobody touches the room, and it sleeps");
        on(&fleet, move |local| {
            let device = DeviceKey { user: "ann".parse().unwrap(), tag: DeviceTag(1) };
            local.begin(CONN, Pending { request: 5, room: None, asks: Asks::Join });
            local.join(room, &channel, Join { conn: CONN, request: 5, device, from: JoinFrom::Tail, follows: false });
            assert!(local.is_pending(CONN, 5), "it is told as soon as the relay's turn comes");
        })
        .await;
        let told = async {
            while on(&fleet, |local| local.is_pending(CONN, 5)).await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(patience, told).await.expect("the join is answered");
    });
}
