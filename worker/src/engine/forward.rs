//! The reports and notices of one thread's streams, on their way to the engine's task. In: each of them as it is made. Out: the same in the same
//! order, reports in batches. Next: [`super::task`].
//!
//! Note: whatever goes to another thread wakes that thread, which costs as much as half a message of media. Each stream reports its counters once
//! a second, so these reports wait a moment for those of other streams.
#![expect(clippy::disallowed_methods, reason = "shell: a task and its timer")]

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::thread::ThreadNotice;
use crate::stream::Report;

/// Time for which reports of counters wait for others: they are up to a second old anyway.
const COUNTERS_WAIT: Duration = Duration::from_millis(250);
/// Reports in a batch: of the counters of a thread's streams, in the time that they wait.
pub(super) const BATCH: usize = 256;

/// Forwards reports and notices until the engine has ended, or the streams and the thread have. All reports that were made before a notice go
/// before it.
pub(super) async fn forward(
    mut reports: mpsc::Receiver<Report>,
    mut notices: mpsc::Receiver<ThreadNotice>,
    to: (mpsc::Sender<Vec<Report>>, mpsc::Sender<ThreadNotice>),
) {
    let mut batch = Vec::new();
    let mut due = None;
    loop {
        let before = batch.len();
        let mut notice = None;
        let mut late = false;
        tokio::select! {
            biased;
            count = reports.recv_many(&mut batch, BATCH) => if count == 0 { return },
            Some(noticed) = notices.recv() => notice = Some(noticed),
            () = until(due) => late = true,
        }
        if notice.is_some() {
            while let Ok(report) = reports.try_recv() {
                batch.push(report);
            }
        }
        let waits = batch[before..].iter().all(|report| matches!(report, Report::Counters(_)));
        if !batch.is_empty() && waits && notice.is_none() && !late && batch.len() < BATCH {
            due.get_or_insert(Instant::now() + COUNTERS_WAIT);
            continue;
        }
        due = None;
        if !batch.is_empty() && to.0.send(std::mem::take(&mut batch)).await.is_err() {
            return;
        }
        if let Some(notice) = notice
            && to.1.send(notice).await.is_err()
        {
            return;
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::control::Session;
    use liveedgecast_common::key::StreamId;

    use super::*;
    use crate::engine::table::StreamSlot;
    use crate::testkit::soon;

    fn counters(messages: u64) -> Report {
        Report::Counters(Session { messages, ..Session::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn counters_wait_for_others_and_everything_else_takes_them_along() {
        let ((reports, reports_in), (notices, notices_in)) = (mpsc::channel(8), mpsc::channel(8));
        let ((batches, mut batches_out), (noticed, mut noticed_out)) = (mpsc::channel(8), mpsc::channel(8));
        tokio::spawn(forward(reports_in, notices_in, (batches, noticed)));
        let began = Instant::now();
        for messages in [1, 2] {
            reports.send(counters(messages)).await.unwrap();
            tokio::time::sleep(COUNTERS_WAIT / 4).await;
        }
        assert_eq!(soon(batches_out.recv()).await, Some(vec![counters(1), counters(2)]));
        assert_eq!(began.elapsed(), COUNTERS_WAIT);
        let (began, skipped) = (Instant::now(), Report::Skipped(1));
        reports.send(counters(3)).await.unwrap();
        reports.send(skipped.clone()).await.unwrap();
        assert_eq!(soon(batches_out.recv()).await, Some(vec![counters(3), skipped]));
        let ended = Report::Ended { stream_id: StreamId("a".to_owned()) };
        reports.send(counters(4)).await.unwrap();
        reports.send(ended.clone()).await.unwrap();
        notices.send(ThreadNotice::TaskEnd(StreamSlot(7))).await.ok().unwrap();
        assert_eq!(soon(batches_out.recv()).await, Some(vec![counters(4), ended]));
        assert!(matches!(soon(noticed_out.recv()).await, Some(ThreadNotice::TaskEnd(StreamSlot(7)))));
        assert!(began.elapsed() < COUNTERS_WAIT);
    }

    #[tokio::test]
    async fn it_ends_with_the_streams_and_with_the_engine() {
        let ((reports, reports_in), (_notices, notices_in)) = (mpsc::channel(8), mpsc::channel(8));
        let ((batches, batches_out), (noticed, _noticed)) = (mpsc::channel(8), mpsc::channel(8));
        let task = tokio::spawn(forward(reports_in, notices_in, (batches, noticed)));
        drop(batches_out);
        reports.send(Report::Skipped(1)).await.unwrap();
        soon(task).await.unwrap();
        let ((_, reports_in), (_, notices_in)) = (mpsc::channel(8), mpsc::channel(8));
        let ((batches, _batches), (noticed, _noticed)) = (mpsc::channel(8), mpsc::channel(8));
        soon(forward(reports_in, notices_in, (batches, noticed))).await;
    }
}
