//! A thousand encoders behind one address, which all return when the activator does.
#![expect(clippy::disallowed_methods, reason = "a shell of its own: a thousand connections in one thread")]

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use liveedgecast_common::rtmp::amf0::Value;
use liveedgecast_common::rtmp::message::Command;
use liveedgecast_common::runtime::raise_open_files;
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::wait::{until, until_some_within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Encoders of the venue.
const ENCODERS: u64 = 1000;
/// Time in which all of them are in again.
const RETURN: Duration = Duration::from_secs(10);
/// Pause of an encoder before it connects again.
const AGAIN: Duration = Duration::from_secs(1);

/// Encoders that publish until this is dropped, and come back whenever their connection ends.
struct Crowd {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    fn of(address: SocketAddr) -> Self {
        // Each encoder has a descriptor of this process.
        raise_open_files();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                for number in 0..ENCODERS {
                    tokio::spawn(async move {
                        loop {
                            let _ = publish(address, &encoder_key(number)).await;
                            tokio::time::sleep(AGAIN).await;
                        }
                    });
                }
                stopped.cancelled().await;
            });
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.cancel();
        self.thread.take().map(JoinHandle::join);
    }
}

fn encoder_key(number: u64) -> String {
    key(&format!("encoder-{number}"))
}

/// Asks to publish, and stays until the activator closes.
async fn publish(address: SocketAddr, key: &str) -> io::Result<()> {
    let mut socket = TcpStream::connect(address).await?;
    let mut hello = vec![3, 0, 0, 0, 0, 0, 0, 0, 0];
    hello.resize(1 + 1536, 5);
    socket.write_all(&hello).await?;
    let mut answer = vec![0; 1 + 1536 + 1536];
    socket.read_exact(&mut answer).await?;
    let mut out = answer[1..1537].to_vec();
    let mut command = |name: &str, transaction, object, arguments| {
        let stream = u32::from(name == "publish");
        Command { name: name.into(), transaction, object, arguments }.write(&mut out, 3, stream, 128);
    };
    let text = |name: &str, value: &str| (name.to_owned(), Value::string(value));
    command("connect", 1.0, Value::Object(vec![text("app", "live"), text("flashVer", "FMLE/3.0")]), Vec::new());
    command("createStream", 2.0, Value::Null, Vec::new());
    command("publish", 3.0, Value::Null, vec![Value::string(key), Value::string("live")]);
    socket.write_all(&out).await?;
    let mut scratch = [0; 1024];
    while socket.read(&mut scratch).await? > 0 {}
    Ok(())
}

/// All encoders wait for a worker; the activator is killed and started again, and all of them wait again.
fn all_are_in_again(settings: [(&str, &str); 1]) {
    let with = |activator: liveedgecast_e2e::relay::Settings| {
        let [(name, value)] = settings;
        activator.with_external_workers().with("RUST_LOG", "info").with(name, value)
    };
    let all = Some((ENCODERS, 0, ENCODERS));
    let upstream = "rtmp://127.0.0.1:9/live/{key}";
    let mut first = with(ActivatorProcess::pushing_to(upstream)).start();
    let _crowd = Crowd::of(first.rtmp());
    until("all encoders to be in", || first.demand() == all);
    first.process.kill();
    let second = with(first.beside(upstream)).start();
    until_some_within(RETURN, "all encoders to be in again", || (second.demand() == all).then_some(()));
    assert_eq!(second.metric("liveedgecast_publishers_delayed_total", &[]), Some(0.0), "somebody waited for a turn");
}

#[test]
fn a_thousand_listed_encoders_behind_one_address_return_within_ten_seconds() {
    let keys: Vec<String> = (0..ENCODERS).map(encoder_key).collect();
    all_are_in_again([("PUBLISH_KEYS", &keys.join(" "))]);
}

#[test]
fn a_thousand_encoders_behind_one_address_of_an_open_activator_return_within_ten_seconds() {
    all_are_in_again([("LIVEEDGECAST_OPEN", "yes")]);
}
