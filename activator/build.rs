//! Generates the types of KEDA's scaler protocol and of our peers' without a protoc binary.
#![expect(clippy::disallowed_methods, reason = "build script: it writes generated code")]

use std::{env, error, fs, path};

use prost::Message as _;

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let scaler = protox::compile(["externalscaler.proto"], ["proto"])?;
    // For reflection: what the service says of itself.
    let described = path::PathBuf::from(env::var("OUT_DIR")?).join("externalscaler.bin");
    fs::write(described, scaler.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(scaler)?;
    let peers = protox::compile(["peers.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(peers)?;
    Ok(())
}
