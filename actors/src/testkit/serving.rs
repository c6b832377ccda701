//! A [`MemStore`] that works by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use super::MemStore;

impl MemStore {
    /// Runs the store on a thread of its own until the answer is dropped.
    #[must_use]
    pub fn serve(self: &Arc<Self>) -> Served {
        let (store, stop) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(SeqCst) {
                store.run();
                let mut inside = store.lock();
                if inside.queue.is_empty() && inside.reads.is_empty() {
                    store.work.wait_for(&mut inside, std::time::Duration::from_millis(5));
                }
            }
        });
        Served { stop, thread: Some(thread) }
    }
}

/// A store's thread; ends when dropped.
pub struct Served {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            // It fails with whoever was told and panicked, who has said so.
            let _ = thread.join();
        }
    }
}
