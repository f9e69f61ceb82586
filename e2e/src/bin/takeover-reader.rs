//! A reader of the takeover experiment, as a process that a test can kill: see `liveedgecast_e2e::takeover`. In: the connection to the
//! holder on standard input, the path of the log as argument.

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
