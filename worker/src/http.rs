//! The HTTP routes: `/metrics`, `/healthz`, `/readyz`. In: the metrics, the number of activators that this worker is registered at, the
//! phase of going down. Out: answers. The activator of a process fleet calls here too, on a port of loopback that it learns by registration.
//!
//! Note: a full worker is ready all the same. The activators learn from its load that it is full; a pod that is not ready is the first
//! that a scale-in removes (architecture.md, "Scale-in").

use std::sync::Arc;

use liveedgecast_common::http::{Answer, Routes, StatusCode};
use tokio::sync::watch;

use crate::drain::WorkerPhase;
use crate::metrics::WorkerMetrics;

/// The sources of all answers.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    /// The metrics.
    pub metrics: Arc<WorkerMetrics>,
    /// Activators at which this worker is registered.
    pub joined: watch::Receiver<usize>,
    /// The phase of going down.
    pub phase: watch::Receiver<WorkerPhase>,
}

impl WorkerStatus {
    /// The table of routes.
    #[must_use]
    pub fn routes(self) -> Routes {
        let (metrics, ready) = (Arc::clone(&self.metrics), self);
        Routes::new()
            .get("/metrics", move |_| std::future::ready(Answer::metrics(metrics.text())))
            .get("/healthz", |_| std::future::ready(Answer::text("alive\n")))
            .get("/readyz", move |_| std::future::ready(ready.readiness()))
    }

    fn readiness(&self) -> Answer {
        let (joined, phase) = (*self.joined.borrow(), *self.phase.borrow());
        let not_ready = |why: String| Answer::text(why).with(StatusCode::SERVICE_UNAVAILABLE);
        match (phase, joined) {
            (WorkerPhase::Serving, 0) => not_ready("not registered at any activator\n".to_owned()),
            (WorkerPhase::Serving, joined) => Answer::text(format!("ready: registered at {joined}\n")),
            (phase, _) => not_ready(format!("going down: {}\n", phase.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_registered_and_not_going_down() {
        let (joins, joined) = watch::channel(0);
        let (phases, phase) = watch::channel(WorkerPhase::Serving);
        let view = WorkerStatus { metrics: Arc::new(WorkerMetrics::new().unwrap()), joined, phase };
        let status = || view.readiness().status;
        assert_eq!(status(), StatusCode::SERVICE_UNAVAILABLE);
        joins.send_replace(2);
        assert_eq!((status(), view.readiness().body), (StatusCode::OK, "ready: registered at 2\n".into()));
        phases.send_replace(WorkerPhase::HandBack);
        assert_eq!(status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(view.readiness().body, "going down: hand_back\n");
    }
}
