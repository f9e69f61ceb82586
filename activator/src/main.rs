//! LiveEdgeCast activator.
fn main() {}
