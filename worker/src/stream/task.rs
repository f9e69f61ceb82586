//! The shell of a stream.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Command, Incoming, Report};
use crate::upstream::Shared;

pub(super) fn spawn(
    incoming: Incoming,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    reports: mpsc::Sender<Report>,
) {
    let _ = (incoming, shared, commands, reports);
    todo!()
}
