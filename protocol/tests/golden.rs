//! The vectors of `protocol/vectors/*.json` against the codec, in both directions, and `PROTOCOL.md` against both.
//!
//! The vectors are built here, from Rust. When they are meant to change, run
//! `PARLOR_BLESS=1 cargo test -p parlor-protocol --test golden` and read the difference: a changed line of `frames.json`
//! is a changed protocol, which clients and stored records do not forgive.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "golden/doc.rs"]
mod doc;
#[path = "golden/frames.rs"]
mod frames;
#[path = "golden/json.rs"]
mod json;
#[path = "golden/odd.rs"]
mod odd;
#[path = "golden/types.rs"]
mod types;

use std::path::PathBuf;

use parlor_protocol::{
    Kind,
    frame::{self, HEADER_BYTES, Header},
};
use serde_json::Value;

use crate::json::{Json, hex, text, unhex};

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file)
}

#[track_caller]
fn load(file: &str) -> Value {
    let path = path(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares a file with what it should hold, or writes it under `PARLOR_BLESS=1`.
#[track_caller]
fn check_file(file: &str, about: &str, groups: &[(&str, Vec<Json>)]) {
    let mut want = format!("{{\n  \"about\": {}", text(about));
    for (name, vectors) in groups {
        let lines: Vec<String> = vectors.iter().map(|vector| format!("    {vector}")).collect();
        want += &format!(",\n  \"{name}\": [\n{}\n  ]", lines.join(",\n"));
    }
    want += "\n}\n";
    if std::env::var_os("PARLOR_BLESS").is_some() {
        return std::fs::write(path(file), want).unwrap();
    }
    let have = std::fs::read_to_string(path(file)).unwrap_or_default();
    let differs =
        have.lines().chain([""]).zip(want.lines().chain([""])).enumerate().find(|(_, (have, want))| have != want);
    if let Some((at, (have, want))) = differs {
        panic!(
            "protocol/vectors/{file}, line {}: the file and the codec differ.\nfile:  {have}\ncodec: {want}\n\
             If the protocol is meant to change, run PARLOR_BLESS=1 cargo test -p parlor-protocol --test golden, say so \
             in PROTOCOL.md, and mind that stored records and clients keep the old bytes.",
            at + 1
        );
    }
    assert_eq!(have, want, "protocol/vectors/{file} differs in its line ends");
}

#[test]
fn the_files_hold_what_the_codec_writes() {
    let frames = frames::vectors().into_iter().map(|vector| {
        let header = Header::from_bytes(vector.frame.first_chunk().unwrap());
        Json::Object(vec![
            ("name", text(vector.name)),
            ("kind", text(format!("{:?}", vector.kind))),
            ("number", Json::Number(u32::from(header.kind))),
            ("flags", Json::Number(u32::from(header.flags))),
            ("request", Json::Number(header.request)),
            ("hex", text(hex(&vector.frame))),
            ("fields", vector.fields),
        ])
    });
    check_file(
        "frames.json",
        "Whole frames, header and body. Numbers of 64 bits are decimal strings, bytes are hex, absent options are null, \
         enums have a name and a number. Encoding the fields gives the hex; decoding the hex gives the fields.",
        &[("frames", frames.collect())],
    );
    every_frame_of_the_file_decodes_to_its_fields_and_encodes_to_its_hex();
}

#[test]
fn the_file_of_types_is_in_step() {
    let values = types::VALUES.iter().map(|(name, value, hex, shortest)| {
        let entries = [
            ("type", text(name)),
            ("value", Json::Raw(value)),
            ("hex", text(hex)),
            ("shortest", Json::Bool(*shortest)),
        ];
        Json::Object(entries.into())
    });
    let refused = types::REFUSED
        .iter()
        .map(|(name, hex, why)| Json::Object(vec![("type", text(name)), ("hex", text(hex)), ("why", text(why))]));
    check_file(
        "types.json",
        "Single values. A receiver takes every one of \"values\"; a sender writes those that are \"shortest\". A receiver \
         refuses a body with any of \"refused\" in it.",
        &[("values", values.collect()), ("refused", refused.collect())],
    );
}

#[test]
fn the_files_of_odd_frames_are_in_step() {
    let malformed = odd::malformed().into_iter().map(|(name, reader, input, reason)| {
        let code = reader.judge(&input).err().map(|(_, code)| code);
        let close = code.filter(|_| reader != odd::Reader::Client);
        Json::Object(vec![
            ("name", text(name)),
            ("reader", text(reader.name())),
            ("hex", text(hex(&input))),
            ("reason", text(reason)),
            ("close", close.map_or(Json::Null, |code| json::Fields::json(&code))),
        ])
    });
    check_file(
        "malformed.json",
        "Bytes that the reader refuses, and the code of the Close with which a server answers. \"Incomplete\" is no error \
         by itself: the reader waits, and a server closes when the time for it is over. A client that is sent such bytes \
         closes the connection.",
        &[("malformed", malformed.collect())],
    );
    let tolerated = odd::tolerated().into_iter().map(|(name, reader, input, same_as)| {
        Json::Object(vec![
            ("name", text(name)),
            ("reader", text(reader.name())),
            ("hex", text(hex(&input))),
            ("same_as", same_as.map_or(Json::Null, |frame| text(hex(&frame)))),
        ])
    });
    check_file(
        "tolerated.json",
        "Frames that no sender of version 1 writes and every receiver takes. \"same_as\" is the frame in its usual form; \
         null where the frame, or the part of it that is unknown, is skipped.",
        &[("tolerated", tolerated.collect())],
    );
}

/// Part of the test above, which may have written the file.
fn every_frame_of_the_file_decodes_to_its_fields_and_encodes_to_its_hex() {
    let file = load("frames.json");
    let mut kinds = Vec::new();
    for vector in file["frames"].as_array().unwrap() {
        let name = &vector["name"];
        let input = unhex(vector["hex"].as_str().unwrap());
        let header = Header::from_bytes(input.first_chunk().unwrap());
        let kind = Kind::from_wire(header.kind).unwrap();
        assert_eq!(vector["kind"], format!("{kind:?}"), "{name}");
        assert_eq!(vector["number"], header.kind, "{name}");
        assert_eq!((&vector["flags"], &vector["request"]), (&header.flags.into(), &header.request.into()), "{name}");
        assert_eq!(input.len(), HEADER_BYTES + header.len as usize, "{name}");
        let (fields, again) = json::read(kind, header.request, &input[HEADER_BYTES..]).unwrap();
        assert_eq!(fields.parsed(), vector["fields"], "{name}");
        assert_eq!(hex(&again), vector["hex"].as_str().unwrap(), "{name}");
        kinds.push(kind);
    }
    for kind in Kind::ALL {
        assert!(kinds.iter().filter(|known| *known == kind).count() > 1, "frames.json needs two or more of {kind:?}");
    }
}

#[test]
fn every_value_of_the_types_decodes_and_encodes() {
    for (name, value, value_hex, shortest) in types::VALUES {
        let (kind, field, before, behind) = types::carrier(name);
        let body = [&before[..], &unhex(value_hex), &behind].concat();
        let (fields, again) = json::read(kind, 0, &body).unwrap_or_else(|error| panic!("{name} {value}: {error}"));
        assert_eq!(fields.entry(field).to_string(), *value, "{name} {value_hex}");
        assert_eq!(again[HEADER_BYTES..] == body, *shortest, "{name} {value_hex}: senders write the shortest form");
    }
    for (name, value_hex, why) in types::REFUSED {
        let (kind, _, before, behind) = types::carrier(name);
        // What is cut off must not be completed by the carrier's next bytes.
        let behind = if ["cut off", "nothing left", "two items"].iter().any(|cut| why.starts_with(cut)) {
            vec![]
        } else {
            behind
        };
        let body = [&before[..], &unhex(value_hex), &behind].concat();
        let read = json::read(kind, 0, &body);
        assert!(read.is_err(), "{name} {value_hex} ({why}) was read as {:?}", read.unwrap().0);
    }
}

#[test]
fn malformed_frames_are_refused_for_their_reason() {
    for (name, reader, input, reason) in odd::malformed() {
        let have = reader.judge(&input).err().map(|(reason, _)| reason);
        assert_eq!(have, Some(reason), "{}", odd::show(name, &input));
    }
}

#[test]
fn tolerated_frames_are_taken() {
    for (name, reader, input, same_as) in odd::tolerated() {
        assert_eq!(reader.judge(&input), Ok(()), "{}", odd::show(name, &input));
        let Some(same_as) = same_as else { continue };
        let fields = |input: &[u8]| {
            let frame = frame::split(input, |header| Ok(header.len)).unwrap().unwrap();
            json::read(Kind::from_wire(frame.header.kind).unwrap(), 0, frame.body).unwrap().0
        };
        assert_eq!(fields(&input), fields(&same_as), "{}", odd::show(name, &input));
    }
}
