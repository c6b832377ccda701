//! Promises: whatever enters the store is answered exactly once, also if a thread of the store panics or ends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use parlor_actors::port::{Append, Outcome, Reply, StoreError};

/// What is answered when the store is gone.
pub(super) fn closed() -> StoreError {
    StoreError::Failed("the store is closed".into())
}

/// A reply that is called exactly once: by [`give`](Self::give), or with an error when dropped.
pub(super) struct Once<T>(Option<Reply<T>>);

impl<T> Once<T> {
    pub(super) fn new(reply: Reply<T>) -> Self {
        Self(Some(reply))
    }

    pub(super) fn give(mut self, answer: Result<T, StoreError>) {
        if let Some(reply) = self.0.take() {
            reply(answer);
        }
    }
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply(Err(closed()));
        }
    }
}

/// An append whose sender is told if it is dropped before [`take`](Self::take).
pub(super) struct PendingAppend(Option<Append>);

impl PendingAppend {
    pub(super) fn new(append: Append) -> Self {
        Self(Some(append))
    }

    pub(super) fn look(&self) -> Option<&Append> {
        self.0.as_ref()
    }

    pub(super) fn take(mut self) -> Option<Append> {
        self.0.take()
    }

    /// Tells the sender that the append will not be stored.
    pub(super) fn fail(mut self, error: StoreError) {
        if let Some(append) = self.0.take() {
            fail(append, error);
        }
    }
}

impl Drop for PendingAppend {
    fn drop(&mut self) {
        if let Some(append) = self.0.take() {
            fail(append, closed());
        }
    }
}

fn fail(append: Append, error: StoreError) {
    let Append { room, generation, commits, place, .. } = append;
    // The place first: who hears of the failure may want it.
    drop(place);
    commits.settled(vec![Outcome { room, generation, stored: Err(error) }]);
}

/// Counts the entries of the writer's queue that hold no place in the budget.
#[derive(Clone, Debug, Default)]
pub(super) struct Controls(Arc<AtomicUsize>);

/// The most loads and flushes that may wait for the writer.
pub(super) const CONTROLS_MAX: usize = 1_024;

impl Controls {
    /// A slot, given back when dropped; `None` if all are taken.
    pub(super) fn take(&self) -> Option<Control> {
        let taken = self.0.fetch_add(1, Relaxed);
        let slot = Control(self.0.clone());
        (taken < CONTROLS_MAX).then_some(slot)
    }
}

/// A slot for a control entry in the writer's queue.
pub(super) struct Control(Arc<AtomicUsize>);

impl Drop for Control {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_reply_is_called_once_whatever_happens() {
        let (told, answers) = channel();
        for given in [true, false] {
            let told = told.clone();
            let once = Once::new(Box::new(move |answer| told.send(answer).unwrap()));
            if given { once.give(Ok(1)) } else { drop(once) }
        }
        drop(told);
        assert_eq!(answers.iter().collect::<Vec<_>>(), [Ok(1), Err(closed())]);
    }

    #[test]
    fn control_slots_are_counted_and_given_back() {
        let controls = Controls::default();
        let mut taken: Vec<_> = (0..CONTROLS_MAX).map(|_| controls.take().unwrap()).collect();
        assert!(controls.take().is_none());
        taken.pop();
        assert!(controls.take().is_some());
    }
}
