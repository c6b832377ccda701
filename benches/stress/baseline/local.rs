//! Baselines on one current-thread tokio runtime (what an actor arbiter is): a task per connection reads into
//! a scratch buffer shared by all; at the end of a turn every member of an active room gets the room's one
//! shared batch by a direct write, and only what the socket refuses is queued.
//!
//! `raw-local` fans out at once; `raw-store` and `raw-sync` hand each turn to a store thread first, which
//! appends it to a file (and calls `fdatasync`), so that nothing is delivered before it is stored.

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{self, Write},
    mem,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, Mutex, mpsc},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{LocalSet, spawn_local},
};

use super::{
    complete_frames,
    hub::{Batch, Conn, Hub, read},
};

/// What a turn passes through before it is delivered.
#[derive(Clone, Copy)]
pub(super) enum Stored {
    Not,
    Written,
    Synced,
}

/// Serves until the process is stopped.
pub(super) fn serve(port: u16, stored: Stored) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::from_std(super::listen(port)?)?;
        let hub = Rc::new(Hub::new());
        match stored {
            Stored::Not => drop(spawn_local(deliver_at_once(hub.clone()))),
            Stored::Written => store_then_deliver(&hub, false)?,
            Stored::Synced => store_then_deliver(&hub, true)?,
        }
        loop {
            let (sock, _) = listener.accept().await?;
            sock.set_nodelay(true)?;
            spawn_local(connection(hub.clone(), sock));
        }
    })
}

async fn deliver_at_once(hub: Rc<Hub>) {
    loop {
        for (room, frames) in hub.turn().await {
            hub.deliver(room, &frames);
        }
    }
}

fn store_then_deliver(hub: &Rc<Hub>, sync: bool) -> io::Result<()> {
    let path = PathBuf::from(format!("raw-{}.log", std::process::id()));
    let mut file = std::fs::File::create(&path)?;
    std::fs::remove_file(&path)?;
    let (to_store, turns) = mpsc::channel::<Batch>();
    let done: Arc<(Mutex<Batch>, Notify)> = Arc::default();

    let stored = done.clone();
    std::thread::spawn(move || {
        while let Ok(mut batch) = turns.recv() {
            batch.extend(turns.try_iter().flatten());
            let bytes: Vec<u8> = batch.iter().flat_map(|(_, frames)| frames).copied().collect();
            file.write_all(&bytes).expect("append");
            if sync {
                file.sync_data().expect("fdatasync");
            }
            stored.0.lock().expect("no panics").append(&mut batch);
            stored.1.notify_one();
        }
    });
    spawn_local({
        let hub = hub.clone();
        async move {
            loop {
                done.1.notified().await;
                let mut rooms: HashMap<u32, Vec<u8>> = HashMap::new();
                for (room, frames) in mem::take(&mut *done.0.lock().expect("no panics")) {
                    rooms.entry(room).or_default().extend_from_slice(&frames);
                }
                for (room, frames) in &rooms {
                    hub.deliver(*room, frames);
                }
            }
        }
    });
    let hub = hub.clone();
    spawn_local(async move { while to_store.send(hub.turn().await).is_ok() {} });
    Ok(())
}

async fn connection(hub: Rc<Hub>, sock: TcpStream) {
    let (mut reader, sock) = sock.into_split();
    let conn = Rc::new(Conn { sock, queued: RefCell::default(), blocked: Notify::new() });
    let mut received = Vec::new();
    let mut room = None;
    loop {
        tokio::select! {
            biased;
            () = conn.blocked.notified() => if conn.drain().await.is_err() { break },
            read = read(&hub, &mut reader, &mut received) => {
                if read == 0 {
                    break;
                }
                if room.is_none() && let Some(id) = received.first_chunk() {
                    room = Some(u32::from_le_bytes(*id));
                    received.drain(..4);
                    conn.write(&[0; 4]);
                    hub.rooms.borrow_mut().entry(room.expect("set")).or_default().members.push(conn.clone());
                }
                let end = complete_frames(&received);
                if let Some(room) = room && end > 0 {
                    hub.publish(room, received.drain(..end));
                }
                if received.is_empty() {
                    received = Vec::new(); // An idle connection owns no buffer.
                }
            }
        }
    }
    if let Some(room) = room
        && let Some(room) = hub.rooms.borrow_mut().get_mut(&room)
    {
        room.members.retain(|member| !Rc::ptr_eq(member, &conn));
    }
}
