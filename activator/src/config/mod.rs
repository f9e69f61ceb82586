//! Configuration in two steps. In: flags and environment ([`Typed`]). Out: [`Settings`], known to be good, or every
//! mistake at once with its fix. Next: `main`, which binds ports only after this.
//!
//! What surprised us: compose files and shells pass "nothing" as an empty variable, so empty means not set; and
//! `--help` of clap prints the values of environment variables, so those that hold keys are hidden from it.

mod kubernetes;
mod meant;
mod reload;
mod typed;

pub use kubernetes::Kubernetes;
pub use meant::{Fleet, Handoff, Listen, PublishRate, ReplayWindow, Settings, Share, dialed, http_address};
pub use reload::Reloaded;
pub(crate) use reload::Watched;
pub use typed::{Hidden, Typed};
