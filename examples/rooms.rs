//! A room from its creation to what is unread in it: members, an edit, read marks, typing, and the list of rooms.
//!
//! ```sh
//! cargo run --example rooms
//! ```

use parlor::{
    client::{Access, Client, Config, Event, Events, JoinFrom, Message, RoomOptions},
    config::EngineConfig,
    engine::Engine,
};

/// What the signals of this application are about; it numbers them as it likes.
const TYPES: u32 = 1;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let engine = Engine::start(EngineConfig::new(folder.path()))?;
    let address = engine.listen("127.0.0.1:0".parse()?)?.to_string();
    let ann = Client::connect(Config::new(&address, "ann".parse()?)).await?;
    let bob = Client::connect(Config::new(&address, "bob".parse()?)).await?;

    // Rooms and members are asked for by name, whether one has joined or not.
    let options = RoomOptions { access: Access::Members, records_max: 10_000, ..RoomOptions::default() };
    let room = ann.create_room("tea", options, &["bob"]).await?;
    println!("{} has {} members; ann is {:?} there", room.name, room.members, room.role);
    if let Err(error) = bob.delete_room("tea").await {
        println!("bob tries to delete it: {error}");
    }

    // Whoever joins gets what is said, and may say something.
    let (ann_in_tea, _events) = ann.join("tea", JoinFrom::Tail).await?;
    let (bob_in_tea, mut heard) = bob.join("tea", JoinFrom::Tail).await?;
    // Signals are not kept: they reach who is there, or nobody.
    ann_in_tea.signal(TYPES, "")?;
    if let Event::Signal(signal) = next(&mut heard).await?
        && signal.key == TYPES
    {
        println!("{} types…", signal.sender);
    }
    let one = ann_in_tea.publish("the kettle is on").await?;
    ann_in_tea.publish("who takes sugar?").await?;
    ann_in_tea.edit(one.seq, "the kettle is off").await?;
    ann_in_tea.react(one.seq, "👍").await?;

    // Bob holds the messages and applies the changes to them, in whatever form they come.
    let mut talk: Vec<Message> = Vec::new();
    while talk.first().is_none_or(|first| first.changes.reactions.is_empty()) {
        match next(&mut heard).await? {
            Event::Message(change) if change.is_change() => {
                for message in &mut talk {
                    message.apply(&change);
                }
            }
            Event::Message(message) => talk.push(message),
            other => println!("bob is told: {other:?}"),
        }
    }
    for message in &talk {
        let edited = if message.changes.edited > 0 { " (edited)" } else { "" };
        println!("{}: {}{edited} {:?}", message.sender, message.text().unwrap_or("?"), message.changes.reactions);
    }

    // He has read the first of them. Marks are gathered, so one may be set with every message that is shown.
    bob_in_tea.mark_read(talk[0].seq)?;
    loop {
        if let Event::Marked(standing) = next(&mut heard).await? {
            println!("bob has read up to {}; {} unread", standing.read, standing.unread);
            break;
        }
    }
    for reader in ann_in_tea.readers(one.seq).await? {
        println!("{} has read what ann said first", reader.user);
    }

    // The two of them have exactly one room for themselves, whoever opens it.
    let direct = bob.open_direct("ann").await?;
    let (here, _) = bob.join(&direct.name, JoinFrom::Tail).await?;
    here.publish("two lumps, please").await?;
    for room in ann.rooms(None, 0).await?.rooms {
        let newest = room.newest.as_ref().and_then(Message::text).unwrap_or("(nothing yet)");
        println!("ann's room {}: {} unread, the newest: {newest}", room.name, room.unread);
    }

    ann.close().await;
    bob.close().await;
    engine.shutdown().await;
    Ok(())
}

async fn next(events: &mut Events) -> Result<Event, &'static str> {
    events.next().await.ok_or("the client is closed")
}
