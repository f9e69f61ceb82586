//! Ends the programs of a test runner that was killed: see `liveedgecast_e2e::orphans`. Its standard input is the runner's words.

fn main() {
    liveedgecast_e2e::orphans::watch(std::io::stdin().lock());
}
