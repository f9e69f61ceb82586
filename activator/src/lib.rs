//! LiveEdgeCast activator.
