//! The manifests in `deploy/`, validated by the API server and by KEDA's webhook.

use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::{said, script};

use crate::Relays;

on_a_cluster! {
    the_cluster_accepts_every_rendering_of_the_manifests
}

fn the_cluster_accepts_every_rendering_of_the_manifests(relays: &Relays<'_>) {
    // KEDA's webhook looks up the Deployment that a ScaledObject scales.
    let _relay = relays.installed(&Installation::default());
    let output = script("check-manifests.sh", &["--cluster"], &[]);
    assert!(output.status.success(), "{}", said(&output));
    println!("{}", said(&output));
}
