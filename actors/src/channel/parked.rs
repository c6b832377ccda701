//! Publishes that wait: a change for the record that it refers to, and behind it what its device has sent since.

use std::collections::{BTreeMap, HashMap, VecDeque};

use foldhash::fast::RandomState;
use parlor_protocol::Seq;

use crate::{
    message::Publish,
    port::{DeviceKey, Target},
};

/// Records that were read for the publish at the head of a queue; `None` where there is none.
pub type Loaded = BTreeMap<Seq, Option<Target>>;

/// A queue for each device whose next publish waits.
#[derive(Debug, Default)]
pub struct Parked {
    queues: HashMap<DeviceKey, Queue, RandomState>,
    len: usize,
}

#[derive(Debug)]
struct Queue {
    /// The record for which the first one waits.
    seq: Seq,
    /// Records that were read for it before.
    loaded: Loaded,
    publishes: VecDeque<Publish>,
}

impl Parked {
    /// Whether a device's publishes wait.
    #[must_use]
    pub fn has(&self, device: &DeviceKey) -> bool {
        !self.queues.is_empty() && self.queues.contains_key(device)
    }

    /// How many publishes wait.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Puts a publish behind those of its device that wait, or gives it back if there are too many.
    ///
    /// # Errors
    /// The publish, if it may not wait.
    pub fn push(&mut self, publish: Publish, room_max: usize, device_max: usize) -> Result<(), Box<Publish>> {
        match self.queues.get_mut(&publish.device) {
            Some(queue) if self.len < room_max && queue.publishes.len() < device_max => {
                queue.publishes.push_back(publish);
                self.len += 1;
                Ok(())
            }
            _ => Err(Box::new(publish)),
        }
    }

    /// A device's publish begins to wait for a record.
    pub fn begin(&mut self, publish: Publish, seq: Seq, loaded: Loaded) {
        debug_assert!(!self.has(&publish.device), "one record at a time");
        self.len += 1;
        let device = publish.device.clone();
        self.queues.insert(device, Queue { seq, loaded, publishes: VecDeque::from([publish]) });
    }

    /// A record was read, or could not be: the publishes that waited for it, each queue with all that was read for its head.
    pub fn take(&mut self, seq: Seq, target: Option<&Option<Target>>) -> Vec<(VecDeque<Publish>, Loaded)> {
        let mut taken: Vec<Queue> =
            self.queues.extract_if(|_, queue| queue.seq == seq).map(|(_, queue)| queue).collect();
        // In an order that does not depend on the table.
        taken.sort_by(|a, b| {
            let key =
                |queue: &Queue| queue.publishes.front().map(|first| (first.device.user.clone(), first.device.tag));
            key(a).cmp(&key(b))
        });
        let whole = |mut queue: Queue| {
            if let Some(target) = target {
                queue.loaded.insert(seq, target.clone());
            }
            (queue.publishes, queue.loaded)
        };
        let taken: Vec<_> = taken.into_iter().map(whole).collect();
        self.len -= taken.iter().map(|(publishes, _)| publishes.len()).sum::<usize>();
        taken
    }
}
