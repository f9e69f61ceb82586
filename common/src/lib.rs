//! What both processes, or the wire between them, need.
#![deny(unsafe_code)]
#![allow(missing_docs, reason = "skeleton")]
pub mod control {
    //! Generated control protocol.
    tonic::include_proto!("liveedgecast.control.v1");
}
pub mod http;
pub mod listen;
pub mod runtime;
