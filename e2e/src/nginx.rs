//! nginx with its RTMP module, from its own directory and at its own address: as an upstream, and as a publisher that `push`es.
//!
//! Note: nginx-rtmp forwards media right after `publish` without waiting for an answer, which no encoder does.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use crate::process::{Program, RunningProgram};
use crate::relay::KEY_MARK;
use crate::wait::until_some;
use crate::{http, loopback};

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    /// The process.
    pub process: RunningProgram,
    address: SocketAddr,
    status: SocketAddr,
}

impl Nginx {
    /// Starts an upstream that takes every stream in either of the applications `live` and `backup`.
    #[must_use]
    pub fn upstream() -> Self {
        Self::start("", "application backup { live on; }")
    }

    /// Starts an upstream that records every stream of `live` into a file: see [`Self::recorded`].
    #[must_use]
    pub fn recording() -> Self {
        Self::start("record all; record_path DIRECTORY;", "")
    }

    /// Starts an upstream that makes HLS of every stream of `live`, in fragments of one second: see [`Self::hls`].
    #[must_use]
    pub fn with_hls() -> Self {
        Self::start("hls on; hls_path DIRECTORY; hls_fragment 1s; hls_playlist_length 10m; hls_continuous off;", "")
    }

    /// The directory of the playlists and the fragments.
    #[must_use]
    pub fn hls(&self) -> &Path {
        self.process.directory()
    }

    /// Starts an upstream that refuses every stream of `live`: it answers `Publish.Start` and closes the connection.
    #[must_use]
    pub fn denying() -> Self {
        Self::start("deny publish all;", "")
    }

    /// Starts an upstream whose hook refuses every stream of `live`: it closes the connection without an answer to `publish`.
    #[must_use]
    pub fn refusing_by_hook() -> Self {
        Self::start("on_publish http://STATUS/refused;", "")
    }

    /// Starts an upstream whose hook takes every stream of `live`: see [`Self::hook_calls`].
    #[must_use]
    pub fn accepting_by_hook() -> Self {
        Self::start("notify_method get; on_publish http://STATUS/accepted;", "")
    }

    /// The requests of the hook so far, with the stream's name in their query.
    #[must_use]
    pub fn hook_calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.process.directory().join("hooks.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// The FLV file that was recorded under a key.
    #[must_use]
    pub fn recorded(&self, key: &str) -> PathBuf {
        self.process.directory().join(format!("{key}.flv"))
    }

    /// Starts an nginx that pushes the streams of its application `live` to `url`, as people configure it who use nginx-rtmp as a relay.
    #[must_use]
    pub fn pushing_to(url: &str) -> Self {
        Self::start(&format!("push {url};"), "")
    }

    fn start(in_live: &str, in_server: &str) -> Self {
        let ip = loopback::address(&[1935, 8080]);
        let (address, status) = (SocketAddr::from((ip, 1935)), SocketAddr::from((ip, 8080)));
        let program = Program::new("nginx", "nginx");
        let directory = program.directory().display().to_string();
        let in_live = in_live.replace("DIRECTORY", &directory).replace("STATUS", &status.to_string());
        let module = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
        let configuration = format!(
            "load_module {module};
daemon off; master_process off; pid {directory}/pid; error_log stderr info;
events {{ worker_connections 256; }}
rtmp {{ server {{
  listen {address}; chunk_size 4096;
  application live {{ live on; {in_live} }}
  {in_server}
}} }}
http {{
  access_log off;
  client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;
  uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
  server {{ listen {status}; location / {{ rtmp_stat all; }} location /refused {{ return 403; }}
    location /accepted {{ access_log {directory}/hooks.log; return 204; }} location /renamed {{ return 302 renamed-{KEY_MARK}; }}
    location /moved {{ return 302 rtmp://{address}/backup; }} }}
}}
"
        );
        fs::write(program.directory().join("nginx.conf"), configuration).expect("the configuration");
        let process = program.args(["-e", "stderr", "-p", &directory, "-c", "nginx.conf"]).start();
        let this = Self { process, address, status };
        until_some("nginx to listen", || TcpStream::connect(address).ok());
        this
    }

    /// The address of the RTMP listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a stream.
    #[must_use]
    pub fn url(&self, app_and_key: &str) -> String {
        format!("rtmp://{}/{app_and_key}", self.address)
    }

    /// The URL of a hook that nginx answers: `refused`, `accepted`, `renamed` (as `renamed`, with the mark of keys) or `moved` (to the application
    /// `backup`).
    #[must_use]
    pub fn http_url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.status)
    }

    /// Statistics of nginx-rtmp, as XML.
    #[must_use]
    pub fn statistics(&self) -> String {
        http::get(self.status, "/").unwrap_or_default()
    }
}
