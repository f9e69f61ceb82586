//! Ends the programs of a test runner that was killed: see `liveedgecast_e2e::orphans`. In: lines of the runner, on standard input.

fn main() {
    liveedgecast_e2e::orphans::watch(std::io::stdin().lock());
}
