//! LiveEdgeCast on a real Kubernetes with KEDA: real publishers outside, activators and workers in pods, an upstream on this machine.
//!
//! They run one after the other, by `./tools/test.sh --cluster`. Each begins with what it asks [`Relays`] for; those that ask for the same
//! follow each other, since tests go by their names.

use liveedgecast_e2e::cluster::Relays;

/// Makes tests of scenarios, which need a cluster.
macro_rules! on_a_cluster {
    ($($scenario:ident)+) => {
        mod on_a_cluster {
            $(
                #[test]
                #[ignore = "needs a cluster: ./tools/test.sh --cluster"]
                fn $scenario() {
                    liveedgecast_e2e::cluster::scenario(super::$scenario);
                }
            )+
        }
    };
}

mod wake;
