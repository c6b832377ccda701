//! The messages of `frames.json`. Ann's phone talks in the room "tea"; Bo listens.

use parlor_protocol::{
    Body, Changed, Code, DeviceTag, Epoch, Extensions, Kind, List, RoomNumber, Token, message::*, to_bytes,
    version::MAGIC,
};

use crate::json::{Fields, Json};

/// One frame with its fields.
pub(crate) struct Vector {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) frame: Vec<u8>,
    pub(crate) fields: Json,
}

const TEA: RoomNumber = RoomNumber(7);
const EPOCH: Epoch = Epoch(3);
/// 2026-11-22T00:00:00Z.
const TIME: u64 = 1_795_305_600_000;
const NONCE: u64 = 1_795_305_600_123_456;
const ANNS_PHONE: DeviceTag = DeviceTag(0x27e0_8034_f5b4_4c89);
const TOKEN: Token = Token(*b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff");
const LIMITS: Limits = Limits {
    payload_bytes_max: 1_440,
    rooms_max: 1_000,
    unanswered_requests_max: 64,
    page_records_max: 200,
    page_bytes_max: 262_144,
    text_bytes_max: 65_536,
};

fn none<'a>() -> Extensions<'a> {
    Extensions::default()
}

fn hello() -> Hello<'static> {
    Hello {
        magic: MAGIC,
        version_min: 1,
        version_max: 1,
        features: 0,
        user: "ann",
        device: "phone",
        device_class: DeviceClass::Mobile,
        network: Network::Wifi,
        credentials: b"",
        resume: None,
        attempt: 1,
        extensions: none(),
    }
}

fn welcome() -> Welcome<'static> {
    Welcome {
        version: 1,
        features: 0,
        server_time: TIME,
        grant_ms: 30_000,
        token: TOKEN,
        resumed: false,
        device_tag: ANNS_PHONE,
        limits: LIMITS,
        modules: List::default(),
        extensions: none(),
    }
}

fn attached() -> Attached<'static> {
    let Joined { room, epoch, tail, first, cursor, count, read, unread, durability, newest_nonce, extensions } =
        joined();
    let name = "lobby";
    Attached { name, room, epoch, tail, first, cursor, count, read, unread, durability, newest_nonce, extensions }
}

fn joined() -> Joined<'static> {
    Joined {
        room: TEA,
        epoch: EPOCH,
        tail: 41,
        first: 1,
        cursor: 41,
        count: 40,
        read: 38,
        unread: 2,
        durability: Durability::Synced,
        newest_nonce: None,
        extensions: none(),
    }
}

fn publish() -> Publish<'static> {
    Publish {
        room: TEA,
        nonce: NONCE,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        lifetime_ms: None,
        flags: 0,
        content_type: ContentType::TEXT,
        payload: b"hi",
        extensions: none(),
    }
}

fn ack() -> Ack<'static> {
    let (seq, time) = (42, TIME + 5_000);
    Ack { room: TEA, nonce: NONCE, seq, time, durability: Durability::Synced, duplicate: false, extensions: none() }
}

fn part(number: u32, payload: &[u8]) -> Part<'_> {
    Part {
        room: TEA,
        nonce: NONCE,
        number,
        parts: 3,
        total_bytes: 2_900,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        lifetime_ms: None,
        flags: 0,
        content_type: ContentType::TEXT,
        payload,
        extensions: none(),
    }
}

fn deliver() -> Deliver<'static> {
    Deliver {
        room: TEA,
        seq: 42,
        time: TIME + 5_000,
        sender: "ann",
        device_tag: ANNS_PHONE,
        nonce: NONCE,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        expires: 0,
        count: 41,
        content_type: ContentType::TEXT,
        payload: b"hi",
        extensions: none(),
    }
}

fn second() -> Deliver<'static> {
    Deliver { seq: 43, time: TIME + 6_000, nonce: NONCE + 1, count: 42, payload: "茶?".as_bytes(), ..deliver() }
}

fn error(code: Code, retry_after_ms: u32, message: &'static str) -> Error<'static> {
    Error { code, retry_after_ms, message, extensions: none() }
}

fn close(code: Code, retry_after_ms: u32, message: &'static str) -> Close<'static> {
    Close { code, retry_after_ms, message, extensions: none() }
}

fn gap(from: u64, to: u64, why: GapReason) -> Gap<'static> {
    Gap { room: TEA, epoch: EPOCH, from, to, why, extensions: none() }
}

fn fetch(start: Option<u64>, direction: Direction, limit: u32) -> Fetch<'static> {
    Fetch { room: TEA, start, direction, limit, extensions: none() }
}

fn position(room: u64, epoch: u64, seq: u64) -> Position {
    Position { room: RoomNumber(room), epoch: Epoch(epoch), seq }
}

fn heartbeat(network: Option<Network>, positions: Vec<Position>) -> Heartbeat<'static> {
    Heartbeat { network, positions: List(positions), extensions: none() }
}

/// Every vector, in the order of the kinds.
pub(crate) fn vectors() -> Vec<Vector> {
    let mut out = Vectors(Vec::new());
    connection(&mut out);
    rooms(&mut out);
    messages(&mut out);
    changes(&mut out);
    uploads(&mut out);
    history(&mut out);
    heartbeats(&mut out);
    managing(&mut out);
    receipts(&mut out);
    presence(&mut out);
    signals(&mut out);
    out.0
}

struct Vectors(Vec<Vector>);

impl Vectors {
    #[expect(clippy::needless_pass_by_value, reason = "reads as a table")]
    fn add<'a, B: Body<'a> + Fields>(&mut self, name: &'static str, request: u32, body: B) {
        let frame = to_bytes(request, &body).to_vec();
        self.0.push(Vector { name, kind: B::KIND, frame, fields: body.json() });
    }
}

fn connection(out: &mut Vectors) {
    out.add("hello", 1, hello());
    out.add(
        "hello with everything",
        0x0403_0201,
        Hello {
            version_min: 1,
            version_max: 300,
            features: 1 << 63,
            user: "Zoë 添加",
            device: "web-1",
            device_class: DeviceClass::Web,
            network: Network::Mobile5g,
            credentials: b"\x00\xff secret",
            resume: Some(TOKEN),
            attempt: u64::MAX,
            extensions: Extensions(vec![(2, b"x"), (4, b"")]),
            ..hello()
        },
    );
    for (name, network) in [
        ("hello, network Unknown", Network::Unknown),
        ("hello, network Wired", Network::Wired),
        ("hello, network Mobile2g", Network::Mobile2g),
        ("hello, network Mobile3g", Network::Mobile3g),
        ("hello, network Mobile4g", Network::Mobile4g),
    ] {
        out.add(name, 1, Hello { network, ..hello() });
    }
    for (name, device_class) in [
        ("hello, device class Other", DeviceClass::Other),
        ("hello, device class Desktop", DeviceClass::Desktop),
        ("hello, device class Bot", DeviceClass::Bot),
    ] {
        out.add(name, 1, Hello { device_class, ..hello() });
    }

    out.add("welcome", 1, welcome());
    out.add(
        "welcome with everything",
        0x0403_0201,
        Welcome {
            features: 1,
            grant_ms: 90_000,
            resumed: true,
            device_tag: DeviceTag(u64::MAX),
            limits: Limits {
                payload_bytes_max: 65_536,
                rooms_max: u32::MAX,
                unanswered_requests_max: 0,
                page_records_max: 250,
                page_bytes_max: 65_535,
                text_bytes_max: 250,
            },
            modules: List(vec![
                Module { name: "polls", kind_first: 0x8000, kind_last: 0x800f },
                Module { name: "票", kind_first: 0xfff0, kind_last: 0xffff },
            ]),
            extensions: Extensions(vec![(0, b"later")]),
            ..welcome()
        },
    );

    out.add("goodbye", 5, Goodbye::default());
    out.add(
        "goodbye with extensions",
        250,
        Goodbye {
            extensions: Extensions(vec![(0, b""), (250, b"a"), (252, b"bc"), (65_536, b"def"), (4_294_967_294, b"g")]),
        },
    );

    out.add("close of a goodbye", 5, close(Code::Goodbye, 0, "goodbye"));
    out.add("close for going away", 0, close(Code::GoingAway, 2_000, "the server shuts down"));
    out.add("close with a code that version 1 does not know", 0, close(Code(3_777), u32::MAX, ""));
    out.add(
        "close with an extension",
        0,
        Close {
            extensions: Extensions(vec![(2, &[0; 3])]),
            ..close(Code::SlowReader, 0, "gelesen wird hier nichts: über 30 s")
        },
    );

    out.add("error, retry later", 3, error(Code::RateLimited, 1_000, "1 message a second"));
    out.add("error, do not retry", 3, error(Code::NonceConflict, 0, "nonce 5 was used for other content"));
    out.add("error without a text", u32::MAX, error(Code::HeldBack, 0, ""));
    out.add("error with a code that version 1 does not know", 65_536, error(Code(2_999), 0, "später"));
    out.add(
        "error with an extension",
        3,
        Error { extensions: Extensions(vec![(2, b"x")]), ..error(Code::Busy, 250, "full") },
    );
}

fn rooms(out: &mut Vectors) {
    let join = |room, from| Join { room, from, extensions: none() };
    out.add("join from the tail", 2, join("tea", JoinFrom::Tail));
    out.add("join with the newest 30", 2, join("tea", JoinFrom::Newest(30)));
    out.add("join from a seq", 2, join("tea", JoinFrom::Seq(251)));
    out.add("join from a position", 2, join("tea", JoinFrom::Position(EPOCH, 40)));
    out.add("join, the largest numbers", 2, join("茶室", JoinFrom::Position(Epoch(u64::MAX), u64::MAX)));
    out.add(
        "join with an extension",
        2,
        Join { extensions: Extensions(vec![(2, b"x")]), ..join("tea", JoinFrom::Newest(u32::MAX)) },
    );

    out.add("joined", 2, joined());
    let empty = Joined { tail: 0, cursor: 0, count: 0, read: 0, unread: 0, durability: Durability::Memory, ..joined() };
    out.add("joined, an empty room", 2, empty);
    out.add(
        "joined, with a newest nonce",
        2,
        Joined {
            room: RoomNumber(u64::MAX),
            epoch: Epoch(1 << 32),
            tail: 65_536,
            first: 65_535,
            cursor: 251,
            count: 250,
            read: u64::MAX - 1,
            unread: 251,
            durability: Durability::Buffered,
            newest_nonce: Some(NONCE),
            extensions: Extensions(vec![(2, b"x")]),
        },
    );

    out.add("leave", 4, Leave { room: TEA, extensions: none() });
    out.add("leave with an extension", 4, Leave { room: RoomNumber(1 << 32), extensions: Extensions(vec![(2, b"x")]) });
    out.add("left", 4, Left { room: TEA, cursor: 42, extensions: none() });
    out.add("left, nothing was sent", 4, Left { room: TEA, cursor: 0, extensions: Extensions(vec![(2, b"x")]) });
}

fn messages(out: &mut Vectors) {
    out.add("publish", 3, publish());
    let opaque = Publish { content_type: ContentType::OPAQUE, payload: b"", ..publish() };
    out.add("publish, silent and empty", 3, Publish { flags: PUBLISH_SILENT, ..opaque });
    out.add("publish, not ASCII", 3, Publish { payload: "茶 🍵".as_bytes(), ..publish() });
    out.add(
        "publish, everything set (version 1 answers Unsupported)",
        3,
        Publish {
            room: RoomNumber(250),
            nonce: 251,
            kind: RecordKind(1),
            refers_to: 65_535,
            lifetime_ms: Some(86_400_000),
            flags: u32::MAX,
            content_type: ContentType(0x8000),
            payload: b"\x00\xff",
            extensions: Extensions(vec![(2, b"x")]),
        },
    );
    out.add("publish, a payload of 251 bytes", 3, Publish { payload: &[b'x'; 251], ..publish() });

    out.add("ack", 3, ack());
    let duplicate = Ack { duplicate: true, durability: Durability::Buffered, ..ack() };
    out.add("ack of a repeat", 6, duplicate);
    out.add(
        "ack in a memory room",
        3,
        Ack { nonce: 1, seq: 1, durability: Durability::Memory, extensions: Extensions(vec![(2, b"x")]), ..ack() },
    );

    out.add("deliver", 0, deliver());
    out.add("deliver, not ASCII", 0, second());
    out.add(
        "deliver, empty payload",
        0,
        Deliver { sender: "Zoë 添加", content_type: ContentType::OPAQUE, payload: b"", ..deliver() },
    );
    out.add(
        "deliver, everything set",
        0,
        Deliver {
            room: RoomNumber(u64::MAX),
            seq: 1 << 32,
            kind: RecordKind(65_535),
            refers_to: 4_294_967_295,
            expires: TIME + 86_400_000,
            count: 65_536,
            content_type: ContentType(0x8001),
            payload: b"\x00\xff",
            extensions: Extensions(vec![(2, b"x")]),
            ..deliver()
        },
    );

    out.add("gap, expired", 0, gap(1, 30, GapReason::EXPIRED));
    out.add("gap, trimmed", 0, gap(31, 40, GapReason::TRIMMED));
    out.add("gap, lost", 0, gap(41, 41, GapReason::LOST));
    out.add("gap, a new epoch: only the position changes", 0, gap(41, 40, GapReason::NEW_EPOCH));
    out.add("gap, above the tail: only the position changes", 0, gap(42, 41, GapReason::ABOVE_TAIL));
    let unknown = gap(251, 65_536, GapReason(300));
    out.add(
        "gap, a reason that version 1 does not know",
        0,
        Gap { extensions: Extensions(vec![(2, b"x")]), ..unknown },
    );
}

/// Bo edits, recalls and reacts; what the record 42 then looks like.
fn changes(out: &mut Vectors) {
    let change = |kind, flags, payload| Publish { kind, refers_to: 42, flags, payload, ..publish() };
    out.add("publish, an edit", 3, change(RecordKind::EDIT, 0, b"hello"));
    let edit = Publish { extensions: Extensions(vec![(TAG_EPOCH, b"\x03")]), ..change(RecordKind::EDIT, 0, b"hello") };
    out.add("publish, an edit of what was seen in epoch 3", 3, edit);
    out.add(
        "publish, a recall",
        3,
        Publish { content_type: ContentType::OPAQUE, ..change(RecordKind::RECALL, 0, b"") },
    );
    out.add("publish, a reaction", 3, change(RecordKind::REACTION, 0, "👍".as_bytes()));
    out.add("publish, a reaction taken back", 3, change(RecordKind::REACTION, PUBLISH_REMOVE, "👍".as_bytes()));

    let record = |kind, payload| Deliver { seq: 44, time: TIME + 7_000, kind, refers_to: 42, payload, ..deliver() };
    out.add("deliver, an edit", 0, record(RecordKind::EDIT, b"hello"));
    out.add("deliver, a recall", 0, Deliver { content_type: ContentType::OPAQUE, ..record(RecordKind::RECALL, b"") });
    out.add("deliver, a reaction", 0, record(RecordKind::REACTION, "👍".as_bytes()));
    let mut marked = |name, changed: Changed<'_>, deliver: Deliver<'_>| {
        changed.with_extensions(|extensions| {
            let frame = Deliver { extensions, ..deliver.clone() };
            out.add(name, 0, frame);
        });
    };
    let reaction = record(RecordKind::REACTION, "👍".as_bytes());
    marked("deliver, a reaction taken back", Changed { removes: true, ..Changed::default() }, reaction);
    let edited = Deliver { payload: b"hello", ..deliver() };
    marked("deliver, edited by 44", Changed { revision: 44, edited: 44, ..Changed::default() }, edited);
    let reactions = vec![("👍", 300), ("茶", 1)];
    marked("deliver, with reactions", Changed { revision: 301, reactions, ..Changed::default() }, deliver());
    marked("deliver, a silent message", Changed { silent: true, ..Changed::default() }, deliver());
    let gone = |why| Changed { revision: 44, tombstone: Some(why), ..Changed::default() };
    let empty = Deliver { content_type: ContentType::OPAQUE, payload: b"", ..deliver() };
    marked("deliver, recalled by 44", gone(TombstoneReason::RECALLED), empty);
    let replaced = Deliver { seq: 43, ..record(RecordKind::EDIT, b"") };
    marked("deliver, an edit that 44 has replaced", gone(TombstoneReason::REPLACED), replaced);
}

fn uploads(out: &mut Vectors) {
    out.add("part, the last of three", 9, part(2, b"and so to bed."));
    out.add("part of 251 bytes", 9, part(0, &[b'x'; 251]));
    out.add(
        "part, everything set (version 1 answers Unsupported)",
        9,
        Part {
            room: RoomNumber(u64::MAX),
            nonce: 251,
            number: 1_023,
            parts: 65_536,
            total_bytes: u32::MAX,
            kind: RecordKind(1),
            refers_to: 65_535,
            lifetime_ms: Some(86_400_000),
            flags: u32::MAX,
            content_type: ContentType(0x8000),
            extensions: Extensions(vec![(2, b"x")]),
            ..part(0, b"\x00\xff")
        },
    );
    let taken = |missing| PartTaken { room: TEA, nonce: NONCE, missing: List(missing), extensions: none() };
    out.add("part taken, two are missing", 9, taken(vec![0, 1]));
    let numbers = vec![0, 250, 251, 1_023];
    out.add("part taken with an extension", 9, PartTaken { extensions: Extensions(vec![(2, b"x")]), ..taken(numbers) });
}

fn history(out: &mut Vectors) {
    out.add("fetch the newest page", 8, fetch(None, Direction::Backward, 0));
    out.add("fetch forward from a seq", 8, fetch(Some(42), Direction::Forward, 2));
    out.add("fetch from the oldest", 8, fetch(None, Direction::Forward, 200));
    let largest = fetch(Some(u64::MAX), Direction::Backward, u32::MAX);
    out.add("fetch, the largest numbers", 8, Fetch { extensions: Extensions(vec![(2, b"x")]), ..largest });

    let records = [to_bytes(0, &deliver()), to_bytes(0, &second())].concat();
    let page = |next, gaps, records| Page {
        room: TEA,
        epoch: EPOCH,
        tail: 43,
        next,
        gaps: List(gaps),
        records,
        extensions: none(),
    };
    out.add("page of two records, the last one", 8, page(None, vec![], &records));
    let one = to_bytes(0, &deliver());
    out.add("page of one record, more to come", 8, page(Some(41), vec![], &one));
    out.add("page of nothing, an empty room", 8, Page { tail: 0, ..page(None, vec![], b"") });
    out.add(
        "page with gaps",
        8,
        Page {
            extensions: Extensions(vec![(2, b"x")]),
            ..page(
                None,
                vec![
                    PageGap { from: 1, to: 30, why: GapReason::EXPIRED },
                    PageGap { from: 31, to: 41, why: GapReason::LOST },
                ],
                &records,
            )
        },
    );
}

fn options() -> RoomOptions {
    RoomOptions {
        access: Access::Members,
        past: Past::SinceAdded,
        announce: Announce::Never,
        lifetime_ms: 86_400_000,
        records_max: 100_000,
        bytes_max: 1 << 32,
        payload_bytes_max: 280,
        messages_per_second_max: 251,
        ..RoomOptions::default()
    }
}

fn managing(out: &mut Vectors) {
    let room = "tea";
    let create = CreateRoom { room, options: RoomOptions::default(), members: List::default(), extensions: none() };
    out.add("create a room", 9, create);
    out.add(
        "create a room, everything set",
        9,
        CreateRoom {
            room: "茶室",
            options: options(),
            members: List(vec!["bo", "Zoë 添加"]),
            extensions: Extensions(vec![(2, b"x")]),
        },
    );
    out.add("done", 9, Done { extensions: none() });
    let later = || Extensions(vec![(2, b"x".as_slice())]);
    out.add("done with an extension", u32::MAX, Done { extensions: later() });
    let broadcast = RoomOptions { access: Access::Broadcast, announce: Announce::Always, past: Past::All, ..options() };
    out.add("configure a room", 9, ConfigureRoom { room, options: broadcast, extensions: none() });
    let plain = ConfigureRoom { room: "茶室", options: RoomOptions::default(), extensions: later() };
    out.add("configure a room, the defaults", 9, plain);
    let (code, message) = (Code::Forbidden, "the user was removed from the room, or banned");
    out.add("detached, banned", 0, Detached { room: TEA, cursor: 42, code, message, extensions: none() });
    let (code, message) = (Code::RoomDeleted, "the room was deleted");
    out.add("detached, deleted", 0, Detached { room: TEA, cursor: 0, code, message, extensions: none() });
    out.add("delete a room", 9, DeleteRoom { room, extensions: none() });
    out.add("delete a room, not ASCII", 9, DeleteRoom { room: "茶室", extensions: later() });
    let info = RoomInfo {
        name: room,
        room: TEA,
        epoch: EPOCH,
        options: options(),
        tail: 43,
        count: 42,
        members: 100_000,
        role: Some(Role::Owner),
        extensions: none(),
    };
    out.add("room info", 9, info.clone());
    let stranger = RoomInfo { tail: 0, count: 0, members: 0, role: None, options: RoomOptions::default(), ..info };
    out.add("room info for a stranger", 9, stranger);
    out.add("describe a room", 9, DescribeRoom { room, extensions: none() });
    out.add("describe a room, not ASCII", 9, DescribeRoom { room: "茶室", extensions: later() });
    let entry = |user, role| MemberEntry { user, role, added: TIME };
    let members = vec![
        entry("ann", Role::Owner),
        entry("bo", Role::Member),
        entry("cid", Role::Moderator),
        entry("dan", Role::Muted),
        entry("eve", Role::Banned),
    ];
    out.add("members", 9, Members { members: List(members), next: Some("eve"), extensions: none() });
    out.add("members, nobody more", 9, Members { members: List::default(), next: None, extensions: none() });
    let users = || List(vec!["bo", "cid"]);
    out.add("set members", 9, SetMembers { room, role: Role::Moderator, users: users(), extensions: none() });
    out.add("ban", 9, SetMembers { room, role: Role::Banned, users: List(vec!["eve"]), extensions: none() });
    let newest = to_bytes(0, &deliver());
    let entry = RoomEntry {
        name: room,
        room: TEA,
        epoch: EPOCH,
        role: Role::Member,
        tail: 42,
        count: 41,
        unread: 3,
        time: TIME + 5_000,
        newest: &newest,
    };
    let empty = RoomEntry { name: "茶室", tail: 0, count: 0, unread: 0, newest: b"", time: TIME, ..entry };
    let next = Some(Activity { time: TIME, room: TEA });
    out.add("rooms", 9, Rooms { rooms: List(vec![entry, empty]), next, extensions: none() });
    out.add("rooms, none", 9, Rooms { rooms: List::default(), next: None, extensions: none() });
    out.add("remove members", 9, RemoveMembers { room, users: users(), extensions: none() });
    out.add("remove oneself", 9, RemoveMembers { room, users: List(vec!["ann"]), extensions: later() });
    out.add("list members", 9, ListMembers { room, after: None, limit: 0, extensions: none() });
    out.add("list members, further on", 9, ListMembers { room, after: Some("eve"), limit: 1_000, extensions: none() });
    out.add("list rooms", 9, ListRooms { before: None, limit: 0, extensions: none() });
    out.add("list rooms, further on", 9, ListRooms { before: next, limit: 100, extensions: none() });
    out.add("open a direct room", 9, OpenDirect { user: "bo", extensions: none() });
    out.add("open a direct room, not ASCII", 9, OpenDirect { user: "Zoë 添加", extensions: later() });
}

fn heartbeats(out: &mut Vectors) {
    out.add("heartbeat, nothing changed", 4, heartbeat(None, vec![]));
    out.add("heartbeat with a position", 4, heartbeat(None, vec![position(7, 3, 42)]));
    out.add("heartbeat with a network", 4, heartbeat(Some(Network::Mobile4g), vec![]));
    let boundaries = vec![
        position(1, 1, 0),
        position(250, 251, 65_535),
        position(65_536, 4_294_967_295, 1 << 32),
        position(u64::MAX, u64::MAX, u64::MAX),
    ];
    let all = heartbeat(Some(Network::Unknown), boundaries);
    out.add("heartbeat with everything", 4, Heartbeat { extensions: Extensions(vec![(2, b"x")]), ..all });

    out.add("follow", 3, Follow { positions: List(vec![]), newest: 0, extensions: none() });
    let follow =
        Follow { positions: List(vec![position(7, 3, 42)]), newest: 300, extensions: Extensions(vec![(2, b"x")]) };
    out.add("follow with a position", 250, follow);
    out.add("attached", 3, attached());
    let everything =
        Attached { name: "票房", read: 250, unread: 251, extensions: Extensions(vec![(2, b"x")]), ..attached() };
    out.add("attached, not ASCII", 0, everything);
    out.add("resume", 3, Resume { positions: List(vec![position(7, 3, 42), position(8, 4, 0)]), extensions: none() });
    let nothing = Resume { positions: List(vec![]), extensions: Extensions(vec![(2, b"x")]) };
    out.add("resume of no room", 250, nothing);

    let beat = HeartbeatAck { server_time: TIME + 30_000, grant_ms: 30_000, extensions: none() };
    out.add("heartbeat ack", 4, beat.clone());
    let sooner = HeartbeatAck { server_time: 0, grant_ms: 5_000, extensions: Extensions(vec![(2, b"x")]) };
    out.add("heartbeat ack, sooner", 4, sooner);
}

fn receipts(out: &mut Vectors) {
    out.add("mark", 6, Mark { room: TEA, read: 42, extensions: none() });
    out.add("mark, everything", 10, Mark { room: TEA, read: u64::MAX, extensions: none() });
    out.add("marked", 6, Marked { room: TEA, read: 42, unread: 1, extensions: none() });
    out.add(
        "marked, on another of the user's devices",
        0,
        Marked { room: TEA, read: 43, unread: 0, extensions: none() },
    );
    out.add("fetch readers", 7, FetchReaders { room: TEA, seq: 42, extensions: none() });
    out.add("fetch readers, all", 8, FetchReaders { room: TEA, seq: 0, extensions: none() });
    let readers =
        vec![Reader { user: "Zoë 添加", read: 300, delivered: 300 }, Reader { user: "ann", read: 42, delivered: 43 }];
    out.add("readers", 7, Readers { room: TEA, readers: List(readers), extensions: none() });
    out.add("readers, none", 8, Readers { room: TEA, readers: List::default(), extensions: none() });
}

fn presence(out: &mut Vectors) {
    let users = || List(vec!["ann", "Zoë 添加"]);
    let later = || Extensions(vec![(2, b"x".as_slice())]);
    out.add("query presence", 9, QueryPresence { users: users(), extensions: none() });
    out.add("query presence of nobody", 9, QueryPresence { users: List::default(), extensions: later() });
    let phone = DevicePresence {
        device: "phone",
        device_class: DeviceClass::Mobile,
        network: Network::Mobile4g,
        connected: true,
    };
    let away =
        DevicePresence { device: "web-1", device_class: DeviceClass::Web, network: Network::Unknown, connected: false };
    let ann = UserPresence { user: "ann", online: true, since: TIME, devices: List(vec![phone, away]) };
    let zoe = UserPresence { user: "Zoë 添加", online: false, since: 0, devices: List::default() };
    out.add("presence", 9, Presence { users: List(vec![ann.clone(), zoe.clone()]), extensions: none() });
    out.add("presence, nobody", 9, Presence { users: List::default(), extensions: later() });
    out.add("presence, a watched user went", 0, Presence { users: List(vec![zoe]), extensions: none() });
    out.add("watch presence", 9, WatchPresence { add: users(), remove: List::default(), extensions: none() });
    let neither = WatchPresence { add: List::default(), remove: List(vec!["bo"]), extensions: later() };
    out.add("watch presence no more", 9, neither);
    out.add("watch a room", 9, WatchRoom { room: TEA, watch: true, extensions: none() });
    out.add("watch a room no more", 9, WatchRoom { room: RoomNumber(u64::MAX), watch: false, extensions: later() });
    let all = RoomPresence {
        room: TEA,
        all: true,
        named: true,
        count: 2,
        came: users(),
        went: List::default(),
        extensions: none(),
    };
    out.add("room presence, all of it", 9, all.clone());
    let changed = RoomPresence { all: false, count: 2, came: List(vec!["bo"]), went: List(vec!["ann"]), ..all.clone() };
    out.add("room presence, what changed", 0, changed);
    let counted = RoomPresence { named: false, count: 65_536, came: List::default(), extensions: later(), ..all };
    out.add("room presence, a large room", 0, counted);
}

fn signals(out: &mut Vectors) {
    let signal = Signal { to: SignalTo::Room(TEA), key: 1, payload: b"", extensions: none() };
    out.add("signal to a room", 0, signal.clone());
    let (to, payload) = (SignalTo::User("bo"), &b"\x00\x10\xff"[..]);
    out.add("signal to a user, whose refusal is wanted", 9, Signal { to, key: 70_000, payload, ..signal });
    let signaled =
        Signaled { room: Some(TEA), sender: "ann", device_tag: ANNS_PHONE, key: 1, payload: b"", extensions: none() };
    out.add("signaled in a room", 0, signaled.clone());
    out.add("signaled to the user", 0, Signaled { room: None, key: 70_000, payload, ..signaled });
}
