//! HAProxy in front of an activator. In: the activator's port, and the version of the PROXY protocol or a prefix of paths. Out: a guard with the proxy's two addresses.

use std::net::{IpAddr, SocketAddr};

use crate::loopback;
use crate::process::{Program, RunningProgram};
use crate::wait::until;

/// A running HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    _process: RunningProgram,
    address: SocketAddr,
}

impl Haproxy {
    /// Starts HAProxy, which passes connections on to `server`; `send` is `send-proxy`, `send-proxy-v2`, or nothing.
    #[must_use]
    pub fn before(server: SocketAddr, send: &str) -> Self {
        let address = loopback::socket(1935);
        let source = address.ip();
        Self::start(address, "tcp", &format!("  server activator {server} source {source} {send}\n"))
    }

    /// Starts HAProxy, which passes HTTP requests below `prefix` on to `server` without the prefix, as an ingress does.
    #[must_use]
    pub fn below(prefix: &str, server: SocketAddr) -> Self {
        let rules = format!(
            "  http-request return status 404 unless {{ path_beg {prefix}/ }}\n  http-request replace-path {prefix}(/.*) \\1\n  \
             option forwardfor\n  server activator {server}\n"
        );
        Self::start(loopback::socket(8080), "http", &rules)
    }

    fn start(address: SocketAddr, mode: &str, rules: &str) -> Self {
        let program = Program::new("haproxy", "haproxy");
        let file = program.directory().join("haproxy.cfg");
        let config = format!(
            "global\n  maxconn 100\ndefaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             listen relay\n  bind {address}\n{rules}"
        );
        std::fs::write(&file, config).expect("the configuration");
        let mut process = program.words("-db -f").arg(&file).start();
        until("HAProxy to listen", || {
            assert!(process.is_running(), "HAProxy has ended:\n{}", process.log());
            std::net::TcpListener::bind(address).is_err()
        });
        Self { _process: process, address }
    }

    /// The address that publishers connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address from which the proxy connects to its server.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        self.address.ip()
    }
}
