//! Recorded conversations, read by what reads them for `parlor replay`: the same file, not a copy.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use self::irc::Line;

#[allow(dead_code, unused_imports, reason = "a load needs what is said and by whom, and nothing else of a log")]
#[path = "../../../../src/cli/replay/irc.rs"]
mod irc;

/// What is said in one room: for each speaker, its messages in order.
pub(super) type Conversation = Vec<Vec<Box<str>>>;

/// The logs that `paths` name: files, and all files that end in `.log` of folders, in the order of their names.
///
/// # Errors
/// If one is not there or cannot be read.
pub(super) fn logs(paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for path in paths {
        if !fs::metadata(path)?.is_dir() {
            logs.push(path.clone());
            continue;
        }
        let files = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
        let files = files.filter(|file| !matches!(file, Ok(path) if path.extension().is_none_or(|end| end != "log")));
        let mut files = files.collect::<io::Result<Vec<_>>>()?;
        files.sort();
        logs.extend(files);
    }
    Ok(logs)
}

/// Reads a log. Its nicks share so many speakers.
pub(super) fn conversation(log: &Path, speakers: usize) -> io::Result<Conversation> {
    let log = fs::read(log)?;
    let log = String::from_utf8_lossy(&log);
    let mut conversation = vec![Vec::new(); speakers];
    let mut nicks = HashMap::new();
    for line in log.lines() {
        if let Line::Said { nick, text, .. } = irc::parse(line) {
            let number = nicks.len();
            let number = *nicks.entry(nick).or_insert(number);
            conversation[number % speakers].push(text.into());
        }
    }
    Ok(conversation)
}
