//! Sessions towards upstreams.
