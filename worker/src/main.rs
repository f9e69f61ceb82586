//! LiveEdgeCast worker.
fn main() {}
