//! An outbox in a file: a log of what was taken and what was done with, rewritten when most of it is done with.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use parlor_protocol::{
    Epoch, Name, Nonce, Seq,
    message::{ContentType, RecordKind},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{change::Change, event::Outgoing, outbox_store::OutboxStore};

/// The file's first bytes: what it is, and its version.
const MAGIC: &[u8; 8] = b"PRLROUT\x01";

/// A log is rewritten when it is longer than this and than four times what it holds.
const COMPACT_LEAST_BYTES: u64 = 64 << 10;

/// The longest entry: a payload and what is around it.
const ENTRY_BYTES_MAX: usize = (64 << 10) + 256;

const APPEND: u8 = 1;
const RENUMBER: u8 = 2;
const REMOVE: u8 = 3;

/// Flags of a message.
const SILENT: u8 = 1;
const CHANGE: u8 = 2;
const EPOCH: u8 = 4;
const LIFETIME: u8 = 8;

/// When [`FileOutbox`] has the disk's word that a message is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before it goes out: it outlives a loss of power. Costs a sync of the disk for each message.
    #[default]
    Each,
    /// When the system gets to it: it outlives the end of the program, however that came, and not that of the machine.
    System,
}

/// An [`OutboxStore`] in a file of its own, which one client has at a time.
///
/// Removals are never synced: one that is lost makes the message go out once more, and the server takes it for a repeat.
/// A last entry that was cut off by a crash is dropped when the file is opened: its message had not gone out. Anything else
/// that is wrong with the file is an error. After a failed write the store refuses everything, since nobody knows what is
/// in the file: open it again.
#[derive(Debug)]
pub struct FileOutbox {
    path: PathBuf,
    file: File,
    sync: SyncPolicy,
    messages: BTreeMap<(Name, Nonce), Outgoing>,
    /// The file's length, and what of it is needed.
    written: u64,
    needed: u64,
    failed: bool,
}

impl FileOutbox {
    /// Opens the outbox of a device of a user in `folder`; both are made if they are not there.
    ///
    /// # Errors
    /// If another client has it, it cannot be read or written, or is damaged.
    pub fn open(folder: impl AsRef<Path>, user: &Name, device: &Name, sync: SyncPolicy) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        // Names may hold what file names may not.
        let hash = parlor_protocol::DeviceTag::of(user, device).0;
        let path = folder.as_ref().join(format!("{hash:016x}.outbox"));
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        lock(&file, &path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (messages, end) = read(&bytes).map_err(|what| damaged(&path, what))?;
        let needed = messages.iter().map(|((room, nonce), message)| size(room, *nonce, message)).sum();
        let mut outbox = Self { path, file, sync, messages, written: end, needed, failed: false };
        if end == 0 {
            outbox.file.set_len(0)?;
            outbox.file.rewind()?;
            outbox.file.write_all(MAGIC)?;
            outbox.written = MAGIC.len() as u64;
        } else {
            outbox.file.set_len(end)?;
            outbox.file.seek(io::SeekFrom::Start(end))?;
        }
        outbox.file.sync_all()?;
        sync_folder(&outbox.path)?;
        Ok(outbox)
    }

    /// How many messages it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn write(&mut self, entry: &[u8], sync: bool) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other(format!("{}: an earlier write failed", self.path.display())));
        }
        // Only what succeeds as a whole leaves the store usable.
        self.failed = true;
        self.file.write_all(entry)?;
        if sync {
            self.file.sync_data()?;
        }
        self.written += entry.len() as u64;
        self.failed = false;
        Ok(())
    }

    /// Rewrites the log if most of it is done with.
    fn compact(&mut self) -> io::Result<()> {
        if self.written < COMPACT_LEAST_BYTES || self.written < 4 * self.needed {
            return Ok(());
        }
        let new = self.path.with_extension("new");
        let mut bytes = MAGIC.to_vec();
        for ((room, nonce), message) in &self.messages {
            bytes.extend(append_entry(room, *nonce, message));
        }
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&new)?;
        lock(&file, &new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        sync_folder(&self.path)?;
        (self.file, self.written) = (file, bytes.len() as u64);
        Ok(())
    }
}

impl OutboxStore for FileOutbox {
    fn append(&mut self, room: &Name, nonce: Nonce, message: &Outgoing) -> io::Result<()> {
        let entry = append_entry(room, nonce, message);
        self.write(&entry, self.sync == SyncPolicy::Each)?;
        self.needed += entry.len() as u64;
        self.messages.insert((room.clone(), nonce), message.clone());
        Ok(())
    }

    fn renumber(&mut self, room: &Name, from: Nonce, to: Nonce) -> io::Result<()> {
        let Some(message) = self.messages.get(&(room.clone(), from)).cloned() else {
            return Err(io::Error::other(format!("{}: nonce {from} of room {room} is not there", self.path.display())));
        };
        let mut body = head(RENUMBER, room, from);
        body.extend(to.to_le_bytes());
        self.write(&framed(&body), self.sync == SyncPolicy::Each)?;
        self.messages.remove(&(room.clone(), from));
        self.messages.insert((room.clone(), to), message);
        Ok(())
    }

    fn remove(&mut self, room: &Name, nonce: Nonce) -> io::Result<()> {
        let Some(message) = self.messages.get(&(room.clone(), nonce)) else { return Ok(()) };
        let freed = size(room, nonce, message);
        self.write(&framed(&head(REMOVE, room, nonce)), false)?;
        self.needed -= freed.min(self.needed);
        self.messages.remove(&(room.clone(), nonce));
        self.compact()
    }

    fn load(&mut self, room: &Name) -> io::Result<Vec<(Nonce, Outgoing)>> {
        let of = self.messages.range((room.clone(), 0)..=(room.clone(), Nonce::MAX));
        Ok(of.map(|((_, nonce), message)| (*nonce, message.clone())).collect())
    }
}

fn lock(file: &File, path: &Path) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::other(format!("{}: another client has this outbox", path.display())),
        TryLockError::Error(error) => error,
    })
}

/// Makes a new or renamed file of a folder durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn damaged(path: &Path, what: &str) -> io::Error {
    let text = format!("{}: {what}; move it away to begin with an empty outbox", path.display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// `what u8 | nonce u64 | room's length u8 | room`, little-endian.
fn head(what: u8, room: &Name, nonce: Nonce) -> Vec<u8> {
    #[expect(clippy::cast_possible_truncation, reason = "a name has at most 64 bytes")]
    let length = room.len() as u8;
    [&[what][..], &nonce.to_le_bytes(), &[length], room.as_bytes()].concat()
}

/// `length u32 | hash u64 | body`: a cut or a torn write shows.
fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes()[..], &xxh3_64(body).to_le_bytes(), body].concat()
}

fn append_entry(room: &Name, nonce: Nonce, message: &Outgoing) -> Vec<u8> {
    let mut body = head(APPEND, room, nonce);
    body.extend(message.content_type.0.to_le_bytes());
    let epoch = message.epoch();
    let flag = |flag, is: bool| if is { flag } else { 0 };
    let changes = flag(CHANGE, message.change.is_some()) | flag(EPOCH, epoch.is_some());
    body.push(flag(SILENT, message.silent) | changes | flag(LIFETIME, message.lifetime_ms.is_some()));
    if let Some(Change { kind, refers_to, remove, .. }) = message.change {
        body.extend(kind.0.to_le_bytes());
        body.extend(refers_to.to_le_bytes());
        body.push(u8::from(remove));
    }
    for number in [epoch.map(|epoch| epoch.0), message.lifetime_ms].into_iter().flatten() {
        body.extend(number.to_le_bytes());
    }
    body.extend_from_slice(&message.payload);
    framed(&body)
}

fn size(room: &Name, nonce: Nonce, message: &Outgoing) -> u64 {
    append_entry(room, nonce, message).len() as u64
}

type Messages = BTreeMap<(Name, Nonce), Outgoing>;
type EntryAndRest<'a> = (&'a [u8], &'a [u8]);

/// What a log says, and where its last whole entry ends; 0 if it has not even its magic.
fn read(bytes: &[u8]) -> Result<(Messages, u64), &'static str> {
    let mut messages = Messages::new();
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return if MAGIC.starts_with(bytes) { Ok((messages, 0)) } else { Err("this is no outbox of this version") };
    };
    while let Some((entry, behind)) = next(rest)? {
        apply(entry, &mut messages).ok_or("an entry does not make sense")?;
        rest = behind;
    }
    Ok((messages, (bytes.len() - rest.len()) as u64))
}

/// The first entry and what is behind it; `None` at the end, or if the last entry was cut off.
fn next(bytes: &[u8]) -> Result<Option<EntryAndRest<'_>>, &'static str> {
    let Some((length, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    let Some((hash, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let Some((body, behind)) = rest.split_at_checked(length) else {
        // A crash leaves less than was written, never a length that none was.
        return if length <= ENTRY_BYTES_MAX { Ok(None) } else { Err("an entry is too long") };
    };
    if xxh3_64(body) == u64::from_le_bytes(*hash) {
        Ok(Some((body, behind)))
    } else if behind.is_empty() {
        Ok(None)
    } else {
        Err("an entry is damaged")
    }
}

fn apply(body: &[u8], messages: &mut Messages) -> Option<()> {
    let (what, rest) = body.split_first()?;
    let (nonce, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first()?;
    let (room, rest) = rest.split_at_checked(usize::from(*length))?;
    let room = Name::parse(std::str::from_utf8(room).ok()?).ok()?;
    let nonce = Nonce::from_le_bytes(*nonce);
    match *what {
        APPEND => {
            let (content_type, rest) = rest.split_first_chunk()?;
            let (flags, mut rest) = rest.split_first()?;
            let mut change = None;
            if flags & CHANGE != 0 {
                let (kind, behind) = rest.split_first_chunk()?;
                let (refers_to, behind) = behind.split_first_chunk()?;
                let (remove, payload) = behind.split_first()?;
                let (kind, refers_to) = (RecordKind(u16::from_le_bytes(*kind)), Seq::from_le_bytes(*refers_to));
                change = Some(Change { kind, refers_to, remove: *remove == 1, epoch: None });
                rest = payload;
            }
            let mut number = |flag: u8| {
                if flags & flag == 0 {
                    return Some(None);
                }
                let (number, behind) = rest.split_first_chunk()?;
                rest = behind;
                Some(Some(u64::from_le_bytes(*number)))
            };
            let (epoch, lifetime_ms) = (number(EPOCH)?, number(LIFETIME)?);
            if let Some(change) = &mut change {
                change.epoch = epoch.map(Epoch);
            }
            let (content_type, payload) =
                (ContentType(u16::from_le_bytes(*content_type)), Bytes::copy_from_slice(rest));
            let message = Outgoing { content_type, payload, silent: flags & SILENT != 0, lifetime_ms, change };
            messages.insert((room, nonce), message);
        }
        RENUMBER => {
            let message = messages.remove(&(room.clone(), nonce))?;
            messages.insert((room, Nonce::from_le_bytes(rest.try_into().ok()?)), message);
        }
        REMOVE => drop(messages.remove(&(room, nonce))?),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn open(folder: &Path) -> io::Result<FileOutbox> {
        FileOutbox::open(folder, &name("ann"), &name("phone"), SyncPolicy::Each)
    }

    fn texts(outbox: &mut FileOutbox, room: &str) -> Vec<(Nonce, String)> {
        let loaded = outbox.load(&name(room)).unwrap();
        loaded
            .into_iter()
            .map(|(nonce, message)| (nonce, String::from_utf8(message.payload.to_vec()).unwrap()))
            .collect()
    }

    fn filled(folder: &Path) -> FileOutbox {
        let mut outbox = open(folder).unwrap();
        for (room, nonce, text) in [("tea", 5, "five"), ("lobby", 1, "one"), ("tea", 6, "six"), ("tea", 7, "")] {
            outbox.append(&name(room), nonce, &Outgoing::text(text)).unwrap();
        }
        outbox
    }

    #[test]
    fn what_is_not_removed_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut outbox = filled(folder.path());
        outbox.remove(&name("tea"), 5).unwrap();
        outbox.renumber(&name("tea"), 7, 9).unwrap();
        drop(outbox);
        let mut outbox = open(folder.path()).unwrap();
        assert_eq!(texts(&mut outbox, "tea"), [(6, "six".into()), (9, String::new())]);
        assert_eq!(texts(&mut outbox, "lobby"), [(1, "one".into())]);
        assert_eq!(texts(&mut outbox, "other"), []);
        let silent = Outgoing { silent: true, ..Outgoing::bytes(vec![0, 255]) };
        outbox.append(&name("tea"), 10, &silent).unwrap();
        let change = |epoch| {
            let change = Some(Change { kind: RecordKind::REACTION, refers_to: 300, remove: true, epoch });
            Outgoing { change, ..Outgoing::bytes("x") }
        };
        let brief = Outgoing { lifetime_ms: Some(5_000), ..Outgoing::text("gone soon") };
        let both = Outgoing { lifetime_ms: Some(0), ..change(Some(Epoch(7))) };
        let more = [silent, change(None), change(Some(Epoch(u64::MAX))), brief, both];
        for (nonce, message) in (10..).zip(&more) {
            outbox.append(&name("tea"), nonce, message).unwrap();
        }
        drop(outbox);
        let mut outbox = open(folder.path()).unwrap();
        let loaded: Vec<_> =
            outbox.load(&name("tea")).unwrap().into_iter().skip(2).map(|(_, message)| message).collect();
        assert_eq!((loaded, outbox.len()), (more.to_vec(), 8));
    }

    #[test]
    fn a_device_has_its_own_and_one_client_at_a_time_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = filled(folder.path());
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another client"), "{error}");
        let other = FileOutbox::open(folder.path(), &name("ann"), &name("desk"), SyncPolicy::System).unwrap();
        assert!(other.is_empty());
        drop(first);
        assert_eq!(open(folder.path()).unwrap().len(), 4);
    }

    #[test]
    fn a_cut_anywhere_leaves_what_was_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = filled(folder.path()).path.clone();
        let whole = fs::read(&path).unwrap();
        let mut lengths = Vec::new();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut outbox = open(folder.path()).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            lengths.push(outbox.len());
            // And it goes on from there.
            outbox.append(&name("new"), 1, &Outgoing::text("new")).unwrap();
            drop(outbox);
            assert_eq!(texts(&mut open(folder.path()).unwrap(), "new"), [(1, "new".into())], "cut at {cut}");
        }
        assert!(lengths.is_sorted() && lengths.first() == Some(&0) && lengths.last() == Some(&4));
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = filled(folder.path()).path.clone();
        let whole = fs::read(&path).unwrap();
        for at in [0, 7, MAGIC.len() + 4, MAGIC.len() + 20] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let error = open(folder.path()).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}: {error}");
        }
    }

    #[test]
    fn the_file_does_not_grow_with_what_was_done() {
        let folder = tempfile::tempdir().unwrap();
        let mut outbox = FileOutbox::open(folder.path(), &name("ann"), &name("phone"), SyncPolicy::System).unwrap();
        outbox.append(&name("tea"), 1, &Outgoing::text("stays")).unwrap();
        for nonce in 2..5_000 {
            outbox.append(&name("tea"), nonce, &Outgoing::text("x".repeat(100))).unwrap();
            outbox.remove(&name("tea"), nonce).unwrap();
        }
        let length = fs::metadata(&outbox.path).unwrap().len();
        assert!(length <= 2 * COMPACT_LEAST_BYTES, "{length} bytes for one message");
        assert!(open(folder.path()).is_err(), "it is still locked");
        drop(outbox);
        assert_eq!(texts(&mut open(folder.path()).unwrap(), "tea"), [(1, "stays".into())]);
    }
}
