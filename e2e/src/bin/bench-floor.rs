//! The bare relay of the benchmark as a process of its own, so that its cost is measured as that of the others is: see
//! `liveedgecast_e2e::bench::floor`. In: the address to listen on, the sink's, the number of rings.

use anyhow::Context as _;
use liveedgecast_e2e::bench::floor::Floor;

fn main() -> anyhow::Result<()> {
    liveedgecast_common::runtime::raise_open_files();
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &'static str| arguments.next().context(what);
    let (listen, sink) = (next("the address to listen on")?, next("the sink's address")?);
    let rings = next("the number of rings")?;
    Floor::start(listen.parse()?, sink.parse()?, rings.parse()?)?.run()?;
    Ok(())
}
