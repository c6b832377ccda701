//! Asking a store about rooms.

use std::sync::Arc;

use parlor_protocol::Code;

use super::{Look, Refusal, Seen};
use crate::port::{Store, StoreError};

/// Looks, and answers once what was seen is synced: nobody is shown what a loss of power could undo.
pub fn look(store: &Arc<dyn Store>, look: Look, reply: impl FnOnce(Result<Seen, Refusal>) + Send + 'static) {
    let then = store.clone();
    let seen = move |seen: Result<Result<Seen, Refusal>, StoreError>| match seen {
        Ok(Ok(seen)) => {
            let settled = move |settled: Result<(), StoreError>| {
                reply(settled.map(|()| seen).map_err(|error| refusal(&error)));
            };
            then.settle(Box::new(settled));
        }
        Ok(Err(refusal)) => reply(Err(refusal)),
        Err(error) => reply(Err(refusal(&error))),
    };
    store.look(look, Box::new(seen));
}

/// What a client is told of a store's failure.
fn refusal(error: &StoreError) -> Refusal {
    match error {
        StoreError::Busy => (Code::Busy, "the store is busy"),
        error => {
            tracing::error!(%error, "a question about rooms could not be answered");
            (Code::StoreUnavailable, "the store could not answer")
        }
    }
}
