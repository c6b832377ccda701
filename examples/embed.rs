//! An engine inside your own process, a client in the same process, and one over TCP.
//!
//! ```sh
//! cargo run --example embed
//! ```

use parlor::{
    client::{Client, Config, Event, JoinFrom},
    config::EngineConfig,
    engine::{Engine, RoomOptions},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let mut config = EngineConfig::new(folder.path());
    // Your accounts decide who comes in. Credentials are whatever you and your clients agree on.
    config.authenticate = Some(std::sync::Arc::new(|login| match login.credentials {
        b"open sesame" => Ok(()),
        _ => Err(format!("wrong password for {}", login.user)),
    }));
    let engine = Engine::start(config)?;
    engine.create_room("lobby", RoomOptions::default()).await?;
    let address = engine.listen("127.0.0.1:0".parse()?)?;

    // The host itself talks through a stream in memory; everybody else over TCP. It is the same client.
    let host = Client::over(engine.connect(), login("host", "in this process")?).await?;
    let (announcements, _) = host.join("lobby", JoinFrom::Tail).await?;

    let ann = Client::connect(login("ann", &address.to_string())?).await?;
    let (_room, mut events) = ann.join("lobby", JoinFrom::Newest(100)).await?;

    let acked = announcements.publish("the doors are open").await?;
    println!("stored as seq {}, {:?}", acked.seq, acked.durability);

    if let Some(Event::Message(message)) = events.next().await {
        println!("{} heard {}: {}", ann.user(), message.sender, message.text().unwrap_or("(not text)"));
    }
    println!("{} users are online; ann is on {:?}", engine.users_online(), engine.sessions("ann")[0].device);

    ann.close().await;
    host.close().await;
    engine.shutdown().await;
    Ok(())
}

fn login(user: &str, server: &str) -> Result<Config, Box<dyn std::error::Error>> {
    let mut config = Config::new(server, user.parse()?);
    config.credentials = b"open sesame".to_vec();
    Ok(config)
}
