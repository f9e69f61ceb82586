//! The PROXY header of a trusted proxy. In: a connection without a byte so far. Out: the address of the proxy's client; the bytes behind the
//! header stay in the kernel. Next: `secure`, or `publisher`.

use std::io;
use std::net::SocketAddr;

use liveedgecast_common::proxy::{ProxyError, ProxyProgress, decode};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The reason why a proxy's connection has no client.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotNamed {
    /// The connection ended without a byte, as the health checks of load balancers do.
    #[error("the connection ended without a byte")]
    Probe,
    /// The connection ended before its header did.
    #[error("the connection ended before its PROXY header")]
    Left,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Header(#[from] ProxyError),
}

/// Reads the header, and not a byte more. `None`: the proxy speaks for itself.
pub(super) async fn client(socket: &mut TcpStream) -> Result<Option<SocketAddr>, NotNamed> {
    // As long as it has to be: a header has fifty bytes or two hundred.
    let mut header = Vec::new();
    loop {
        let more = match decode(&header)? {
            ProxyProgress::Whole(found) => return Ok(found.client),
            ProxyProgress::More(more) => more,
        };
        let known = header.len();
        header.resize(known + more, 0);
        let read = match socket.read(&mut header[known..]).await {
            // A health check may end with a reset.
            Err(error) if known == 0 && error.kind() == io::ErrorKind::ConnectionReset => 0,
            read => read?,
        };
        if read == 0 {
            return Err(if known == 0 { NotNamed::Probe } else { NotNamed::Left });
        }
        header.truncate(known + read);
    }
}
