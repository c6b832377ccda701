//! `PROTOCOL.md` against the code: its tables name every field, variant, kind, code and limit, and its hex is real.

use std::path::Path;

use parlor_protocol::{
    Advice, Code, Kind, codec, frame,
    frame::HEADER_BYTES,
    id,
    message::{self, BODIES},
};

use crate::{
    frames,
    json::{hex, unhex},
    types,
};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn doc() -> String {
    read("../PROTOCOL.md")
}

/// The cells of the first table under a heading, without its two header lines.
#[track_caller]
fn table(doc: &str, heading: &str) -> Vec<Vec<String>> {
    let is_heading = |line: &&str| line.starts_with('#') && line.trim_start_matches('#').trim() == heading;
    let mut lines = doc.lines().skip_while(|line| !is_heading(line));
    assert!(lines.next().is_some(), "PROTOCOL.md has no section {heading:?}");
    let section = lines.take_while(|line| !line.starts_with('#'));
    let rows = section.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    rows.skip(2).map(cells).collect()
}

/// The text between two backticks.
#[track_caller]
fn code(cell: &str) -> &str {
    let mut parts = cell.split('`');
    parts.nth(1).unwrap_or_else(|| panic!("{cell:?} has no `code`"))
}

/// The source of all messages.
fn messages() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/message");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect::<Vec<_>>().join("\n")
}

/// The items of a source that begin with `keyword`, as their names and the lines of their bodies.
fn items(source: &str, keyword: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let Some(rest) = line.strip_prefix(keyword).filter(|rest| rest.ends_with('{')) else { continue };
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
        let body = lines.by_ref().take_while(|line| *line != "}").map(|line| line.trim().to_owned());
        found.push((name, body.filter(|line| !line.starts_with("//") && !line.starts_with('#')).collect()));
    }
    found
}

/// How `PROTOCOL.md` writes a Rust type.
fn doc_type(rust: &str) -> String {
    let inside = |prefix| rust.strip_prefix(prefix).and_then(|rest: &str| rest.strip_suffix('>'));
    if let Some(inner) = inside("Option<") {
        return format!("option of {}", doc_type(inner));
    }
    if let Some(inner) = inside("List<") {
        return format!("list of {}", doc_type(inner.split(',').next().unwrap()));
    }
    match rust.trim_end_matches("<'a>") {
        "&'a str" => "string",
        "&'a [u8]" => "bytes",
        "[u8; 4]" => "4 bytes",
        "Token" => "16 bytes",
        "Seq" | "Nonce" | "UnixMillis" | "RoomNumber" | "Epoch" | "DeviceTag" => "u64",
        "Code" | "RecordKind" | "ContentType" | "GapReason" => "u16",
        "Extensions" => "extensions",
        other => other,
    }
    .into()
}

#[test]
fn every_field_of_every_message_stands_in_wire_order() {
    let (doc, source) = (doc(), messages());
    let structs = items(&source, "pub struct ");
    for (_, name) in BODIES {
        assert!(structs.iter().any(|(known, _)| known == name), "no struct {name} was found in src/message");
    }
    for (name, lines) in structs {
        let field = |line: &String| {
            let (field, of) = line.strip_prefix("pub ")?.strip_suffix(',')?.split_once(": ")?;
            Some((field.to_owned(), doc_type(of)))
        };
        let want: Vec<_> = lines.iter().map(|line| field(line).unwrap_or_else(|| panic!("{name}: {line:?}"))).collect();
        let have: Vec<_> = table(&doc, &name).iter().map(|row| (code(&row[0]).to_owned(), row[1].clone())).collect();
        assert_eq!(have, want, "the table of {name} in PROTOCOL.md (left) and src/message (right)");
    }
}

#[test]
fn every_variant_stands_under_its_number() {
    let (doc, source) = (doc(), messages());
    let numbered = |row: &Vec<String>| (row[0].clone(), code(&row[1]).to_owned());
    for (name, lines) in items(&source, "pub enum ") {
        let variant = |line: &String| line.chars().take_while(|c| c.is_alphanumeric()).collect::<String>();
        let want: Vec<_> = lines.iter().enumerate().map(|(at, line)| (at.to_string(), variant(line))).collect();
        let have: Vec<_> = table(&doc, &name).iter().map(numbered).collect();
        assert_eq!(have, want, "the table of {name} in PROTOCOL.md (left) and src/message (right)");
    }
    for (name, lines) in items(&source, "impl ") {
        let constant = |line: &String| {
            let (name, value) = line.strip_prefix("pub const ")?.split_once(": Self = Self(")?;
            Some((value.strip_suffix(");")?.to_owned(), name.to_owned()))
        };
        let want: Vec<_> = lines.iter().filter_map(constant).collect();
        if want.is_empty() {
            continue; // A trait's impl.
        }
        let have: Vec<_> = table(&doc, &name).iter().map(numbered).collect();
        assert_eq!(have, want, "the table of {name} in PROTOCOL.md (left) and src/message (right)");
    }
}

#[test]
fn every_kind_stands_with_its_number_and_longest_body() {
    let want = Kind::ALL.iter().map(|kind| {
        let sender = if kind.is_request() { "client" } else { "server" };
        let most = match (kind.body_bytes_max(1), kind.body_bytes_max(frame::PAYLOAD_BYTES_MAX)) {
            (1_025, 66_560) => "payload limit + 1,024".into(),
            (fixed, same) => {
                assert_eq!(fixed, same, "{kind:?}");
                thousands(fixed as usize)
            }
        };
        (format!("{:#06x}", *kind as u16), format!("{kind:?}"), sender.to_owned(), most)
    });
    let row = |row: &Vec<String>| (row[0].clone(), code(&row[1]).to_owned(), row[2].clone(), row[3].clone());
    let have: Vec<_> = table(&doc(), "Kinds").iter().map(row).collect();
    assert_eq!(have, want.collect::<Vec<_>>(), "the table of kinds in PROTOCOL.md (left) and frame.rs (right)");
}

#[test]
fn every_code_stands_with_its_number_and_advice() {
    let doc = doc();
    let advice = |code: &Code| match code.advice() {
        Advice::RetryLater => "retry later",
        Advice::DoNotRetry => "do not retry",
        Advice::ReconnectNow => "reconnect now",
        Advice::ReconnectLater => "reconnect later",
        Advice::DoNotReconnect => "do not reconnect",
        Advice::None => "none",
    };
    let rows: Vec<&str> = doc
        .lines()
        .filter(|line| line.strip_prefix("| ").is_some_and(|rest| rest.split(" | ").next().unwrap().len() == 4))
        .filter(|line| line[2..6].parse::<u16>().is_ok())
        .collect();
    assert_eq!(rows.len(), Code::ALL.len(), "{rows:#?}");
    for (row, (code, name)) in rows.iter().zip(Code::ALL) {
        let want = format!("| {} | `{name}` | {} | ", code.0, advice(code));
        assert!(row.starts_with(&want), "PROTOCOL.md says {row:?} where {want:?} is expected");
    }
}

#[test]
fn every_limit_of_the_protocol_stands() {
    let limits = table(&doc(), "All limits");
    for (what, number) in [
        ("a name of a user, a device, a room", id::NAME_BYTES_MAX),
        ("credentials", message::CREDENTIALS_BYTES_MAX),
        ("a payload, whatever the server allows", frame::PAYLOAD_BYTES_MAX as usize),
        ("any body", frame::BODY_BYTES_MAX as usize),
        ("extensions of a body", codec::EXTENSIONS_MAX),
        ("positions of a heartbeat", message::ROOMS_PER_SESSION_MAX),
        ("gaps of a page", message::GAPS_PER_PAGE_MAX),
        ("readers of one answer", message::READERS_MAX),
        ("a signal's payload", message::SIGNAL_BYTES_MAX),
        ("parts of a long message", message::PARTS_MAX as usize),
        ("missing parts that an answer names", message::MISSING_MAX),
        ("users of a request, members of a page", message::MEMBERS_PER_REQUEST_MAX),
        ("rooms of a page", message::ROOMS_PER_PAGE_MAX),
        ("users of a request about presence, and of its answer", message::PRESENCE_USERS_MAX),
        ("devices named of one user", message::PRESENCE_DEVICES_MAX),
    ] {
        let row = limits.iter().find(|row| row[0] == what).unwrap_or_else(|| panic!("no limit {what:?}"));
        assert!(row[1].split(' ').any(|word| word == thousands(number)), "{row:?} should say {}", thousands(number));
    }
}

/// A number as the page writes it.
fn thousands(number: usize) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},{:03}", number / 1_000, number % 1_000) }
}

#[test]
fn the_hex_of_the_page_is_that_of_the_vectors() {
    let doc = doc();
    let known: Vec<String> = frames::vectors().iter().map(|vector| hex(&vector.frame)).collect();
    let blocks: Vec<String> = doc
        .split("```hex\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .map(|block| block.lines().map(|line| line.split('#').next().unwrap()).collect())
        .map(|block: String| hex(&unhex(&block)))
        .collect();
    assert!(blocks.len() >= 10, "the first session is walked through in hex");
    for block in blocks {
        assert!(block.len() >= 2 * HEADER_BYTES && known.contains(&block), "no vector of frames.json is {block}");
    }
}

#[test]
fn the_values_of_the_page_are_those_of_the_vectors() {
    let rows = table(&doc(), "Vectors");
    assert!(rows.len() >= 20);
    for row in rows {
        let (name, value, value_hex) = (row[0].as_str(), code(&row[1]), code(&row[2]));
        let known = types::VALUES.iter().any(|(a, b, c, _)| (*a, *b, *c) == (name, value, value_hex));
        assert!(known, "no vector of types.json is {name} {value} {value_hex}");
    }
}
