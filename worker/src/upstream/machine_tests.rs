//! The rules on virtual time.
