//! Asks the server what a command wants, and says what came of it in lines.

use parlor::client::{Client, JoinFrom, RequestError, Role, Room, RoomOptions};
use parlor_protocol::Seq;

use super::{clock::Clock, command::Request};

/// How many members and rooms are listed at most.
const LISTED_MAX: u32 = 100;

/// Does it; the lines to show, or why it failed.
pub(crate) async fn perform(client: Client, room: Room, clock: Clock, request: Request) -> Result<Vec<String>, String> {
    let lines = match request {
        Request::Who(seq) => who(&room, seq).await,
        Request::Rooms => rooms(&client, &clock).await,
        Request::Online => online(&room).await,
        Request::Members => members(&client, room.name()).await,
        Request::Create(name, access) => {
            let options = RoomOptions { access, ..RoomOptions::default() };
            let created = client.create_room(&name, options, &[]).await;
            created.map(|_| vec![format!("room {name} is yours: parlor chat {name:?} --as {}", client.user())])
        }
        Request::Role(role, users) => {
            let done = client.set_members(room.name(), role, &strs(&users)).await;
            done.map(|()| vec![format!("{}: {}", word(Some(role)), users.join(", "))])
        }
        Request::Kick(users) => {
            let done = client.remove_members(room.name(), &strs(&users)).await;
            done.map(|()| vec![format!("removed: {}", users.join(", "))])
        }
        Request::Direct(user, text) => return direct(&client, &user, text).await,
    };
    lines.map_err(|error| error.to_string())
}

/// A role as a person reads it.
pub(crate) fn word(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Owner) => "owner",
        Some(Role::Moderator) => "moderator",
        Some(Role::Member) => "member",
        Some(Role::Muted) => "muted",
        Some(Role::Banned) => "banned",
        None => "gone",
    }
}

async fn who(room: &Room, seq: Seq) -> Result<Vec<String>, RequestError> {
    let readers = room.readers(0).await?;
    let (mut read, mut delivered) = (Vec::new(), Vec::new());
    for reader in &readers {
        if reader.read >= seq {
            read.push(&*reader.user);
        } else if reader.delivered >= seq {
            delivered.push(&*reader.user);
        }
    }
    let list = |users: &[&str]| if users.is_empty() { "nobody".to_owned() } else { users.join(", ") };
    Ok(vec![format!("{seq} was read by: {}; received by: {}", list(&read), list(&delivered))])
}

async fn rooms(client: &Client, clock: &Clock) -> Result<Vec<String>, RequestError> {
    let page = client.rooms(None, LISTED_MAX).await?;
    let line = |room: &parlor::client::RoomEntry| {
        let newest = room.newest.as_ref().map_or_else(String::new, |message| {
            let text = crate::cli::sanitize::payload(message.content_type, &message.payload);
            format!(", {} <{}> {text}", clock.minute(message.time), message.sender)
        });
        format!("{}: {}, {} unread{newest}", room.name, word(Some(room.role)), room.unread)
    };
    let mut lines: Vec<_> = page.rooms.iter().map(line).collect();
    if page.next.is_some() {
        lines.push("and more".to_owned());
    } else if lines.is_empty() {
        lines.push("you have a role in no room; rooms that are open to everybody are not listed".to_owned());
    }
    Ok(lines)
}

async fn online(room: &Room) -> Result<Vec<String>, RequestError> {
    let here = room.watch_presence().await?;
    let mut users: Vec<&str> = here.came.iter().map(|user| &**user).collect();
    users.sort_unstable();
    let unnamed = (here.count as usize).saturating_sub(users.len());
    Ok(vec![match (users.len(), unnamed) {
        (0, unnamed) => format!("{unnamed} here"),
        (_, 0) => format!("{} here: {}", here.count, users.join(", ")),
        (_, unnamed) => format!("{} here: {}, and {unnamed} more", here.count, users.join(", ")),
    }])
}

async fn members(client: &Client, room: &str) -> Result<Vec<String>, RequestError> {
    let page = client.members(room, None, LISTED_MAX).await?;
    let mut lines: Vec<_> =
        page.members.iter().map(|member| format!("{}: {}", member.user, word(Some(member.role)))).collect();
    if page.next.is_some() {
        lines.push("and more".to_owned());
    } else if lines.is_empty() {
        lines.push("nobody has a role in this room".to_owned());
    }
    Ok(lines)
}

async fn direct(client: &Client, user: &str, text: Option<String>) -> Result<Vec<String>, String> {
    let room = client.open_direct(user).await.map_err(|error| error.to_string())?.name;
    let Some(text) = text else {
        return Ok(vec![format!("you and {user}: parlor chat {room} --as {}", client.user())]);
    };
    let (room, events) = client.join(&room, JoinFrom::Tail).await.map_err(|error| error.to_string())?;
    drop(events);
    let said = room.publish(&text).await.map_err(|error| error.to_string());
    said.map(|_| vec![format!("said to {user}")])
}

fn strs(users: &[String]) -> Vec<&str> {
    users.iter().map(String::as_str).collect()
}
