//! A reader of the takeover experiment, as a process that can be killed: see `liveedgecast_e2e::takeover`. Its standard input is the
//! connection to the holder; its argument is the file that it logs to.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::Context;
use liveedgecast_e2e::takeover::reader;
use tokio::net::UnixStream;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let log = std::env::args_os().nth(1).context("the log's path")?;
    let control: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
    let control = std::os::unix::net::UnixStream::from(control);
    control.set_nonblocking(true)?;
    reader::run(UnixStream::from_std(control)?, &PathBuf::from(log)).await
}
