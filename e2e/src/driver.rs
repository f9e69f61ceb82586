//! A driver in Python of something that scenarios look at: a browser, a terminal. In: orders. Out: its answers; a panic where one is a failure. The
//! packages of drivers are from PyPI, and `tools/setup.sh` installs them.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use crate::process::{Program, RunningProgram};
use crate::publish::root;
use crate::wait::{LONG, until_some};

/// A running driver.
#[derive(Debug)]
pub struct PythonDriver {
    _process: RunningProgram,
    socket: BufReader<TcpStream>,
}

impl PythonDriver {
    /// Starts a script of `e2e`, whose packages are in a folder of `.tools`.
    ///
    /// # Panics
    /// A package or a program that the script needs is missing; `tools/setup.sh tests` installs all.
    #[must_use]
    pub fn start(script: &str, packages: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("its port").to_string();
        let program = Program::new(packages, "python3").env("PYTHONPATH", root().join(".tools").join(packages));
        let program = program.env("PYTHONDONTWRITEBYTECODE", "1");
        let mut process = program.arg(root().join("e2e").join(script)).arg(address).start();
        let socket = until_some("the driver", || {
            assert!(process.is_running(), "{script} has ended; ./tools/setup.sh tests installs what it needs");
            listener.accept().ok().map(|(socket, _)| socket)
        });
        socket.set_nonblocking(false).expect("a socket");
        socket.set_read_timeout(Some(LONG)).expect("a socket");
        Self { _process: process, socket: BufReader::new(socket) }
    }

    /// Gives an order, and returns the answer.
    ///
    /// # Panics
    /// The order has failed.
    #[track_caller]
    pub fn order(&mut self, order: &Value) -> Value {
        writeln!(self.socket.get_mut(), "{order}").expect("the driver");
        let mut line = String::new();
        self.socket.read_line(&mut line).expect("an answer of the driver");
        let mut answer: Value = serde_json::from_str(&line).expect("JSON of the driver");
        assert!(answer["failed"].is_null(), "{order}: {}", answer["failed"].as_str().unwrap_or_default());
        answer["ok"].take()
    }
}
