//! Configuration in two steps. In: flags and environment ([`Args`]). Out: [`Settings`], known to be good, or every
//! mistake at once with its fix. Next: `main`, which dials and binds only after this.
//!
//! A worker has no route and no push URL of its own: everything about a stream comes with the stream (architecture.md, "Two ways to hand over").
//! Note: a container's environment is often shared by both processes, so settings of the activator alone
//! (`RTMP_PUSH_URL` and the like) are ignored here and not mistakes.

mod args;
mod resolve;

pub use args::Args;
pub use liveedgecast_common::setting::{Handoff, Hidden};
pub use resolve::{Activator, Here, Settings, http_address};
