//! Configuration in two steps. In: flags and environment ([`Args`]). Out: [`Settings`], known to be good, or every
//! mistake at once with its fix. Next: `main`, which binds ports only after this.
//!
//! Note: compose files and shells pass "nothing" as an empty variable, so empty means not set; and
//! `--help` of clap prints the values of environment variables, so those that hold keys are hidden from it.

mod args;
mod command;
mod file;
mod hook;
mod http_url;
mod incidents;
mod jwt;
mod kubernetes;
mod proxies;
mod reload;
mod resolve;
mod rtmps;
mod tls;
mod tokens;
mod webhook;

pub use args::Args;
pub use command::{
    ApiArgs, CheckArgs, DestinationCommand, DestinationUrlArgs, EventsArgs, SimulateArgs, StreamArgs, Subcommand,
    TopArgs, WaitArgs, WorkerArgs,
};
pub(crate) use file::name_of;
pub use file::{ConfigFile, DEFAULT_ROUTE, Given, ListedPublisher, Route, RouteBackup, RouteDestination, check_name};
pub use hook::{Hook, HookFormat, Hooks, OnHookError};
pub use http_url::{HttpUrl, HttpUrlError};
pub use incidents::IncidentFolder;
pub use jwt::{Jwt, JwtArgs, JwtKey, JwtKeyError, JwtKeys};
pub use kubernetes::Kubernetes;
pub use liveedgecast_common::setting::{Handoff, Hidden};
pub use proxies::{AddressRange, TrustedProxies};
pub use reload::{FileNews, Reloaded};
pub use resolve::{
    Fleet, Limits, Listen, PeerAddress, PublishRate, ReplayWindow, Settings, Share, check_file, check_text, dialed,
    http_address,
};
pub use rtmps::RtmpsTls;
pub use tls::{ScalerTls, TlsFiles};
pub use tokens::{ApiTokens, TokenSources, token_of_settings};
pub use webhook::{EventHook, SigningSecret};
