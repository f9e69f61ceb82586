//! LiveEdgeCast worker.
