//! The end of an arbiter: everything is answered, then all connections are closed, each client told when to come back.

use std::{ops::Range, time::Duration};

use parlor_protocol::Code;
use tokio::sync::oneshot;

use super::Local;

/// How often a shutdown looks whether everything is answered.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// When each of `count` clients may come back: one a millisecond, or as many as it takes for all to be told a time within
/// `come_back_ms`.
fn spread(count: usize, come_back_ms: &Range<u32>) -> impl Iterator<Item = u32> {
    let (start, window) = (come_back_ms.start, u64::from(come_back_ms.end.saturating_sub(come_back_ms.start)));
    let (count, window) = (count.max(1) as u64, window.min(count as u64));
    #[expect(clippy::cast_possible_truncation, reason = "less than the window, which fits")]
    (0..count).map(move |at| start + (at * window / count) as u32)
}

pub(super) async fn drain(local: Local, patience: Duration, come_back_ms: Range<u32>, done: oneshot::Sender<()>) {
    local.0.draining.set(true);
    let wait_for = async |idle: fn(&Local) -> bool| {
        let waiting = async {
            while !idle(&local) {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        tokio::time::timeout(patience, waiting).await
    };
    if wait_for(Local::is_idle).await.is_err() {
        tracing::warn!("the shutdown did not wait for all answers");
    }
    local.with(|state| {
        let conns = state.all();
        let times = spread(conns.len(), &come_back_ms);
        for (conn, retry_after_ms) in conns.into_iter().zip(times) {
            state.close(conn, 0, Code::GoingAway, "the server shuts down", retry_after_ms);
        }
    });
    if wait_for(|local| local.connections() == 0).await.is_err() {
        tracing::warn!("the shutdown did not wait for all connections to read their last frames");
    }
    // The receiver is gone if the engine did not wait; then nobody is to be told.
    let _ = done.send(());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_come_back_one_by_one() {
        let times = |count, range| spread(count, &range).collect::<Vec<u32>>();
        assert_eq!(times(3, 500..30_000), [500, 501, 502]);
        assert_eq!(times(4, 500..502), [500, 500, 501, 501]);
        assert_eq!(times(2, 500..500), [500, 500]);
        assert_eq!(spread(100_000, &(500..30_500)).max(), Some(30_499));
        assert_eq!(times(0, 500..600), [500]);
    }
}
