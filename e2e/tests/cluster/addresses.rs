//! Addresses by which publishers reach an activator in a cluster.

use std::net::{IpAddr, SocketAddr};

use liveedgecast_e2e::cluster::api::path;
use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::not_run;
use liveedgecast_e2e::cluster::pods::Way;
use liveedgecast_e2e::compare::assert_arrived_whole;
use liveedgecast_e2e::tap::Tap;

use crate::{Relays, ended, published, receives};

on_a_cluster! {
    a_publisher_arrives_by_load_balancer_node_port_and_port_forward
}

fn a_publisher_arrives_by_load_balancer_node_port_and_port_forward(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    let service = relay.api().get(&format!("{}/liveedgecast", path("services"))).expect("the Service");
    let forward = Way::by_port_forward("service/liveedgecast", 1935);
    let mut ways = vec![("forwarded", forward.address)];

    let ingress = &service["status"]["loadBalancer"]["ingress"][0];
    match ingress["ip"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok()) {
        Some(ip) => {
            assert_eq!(relay.address(), ip.to_string(), "what up.sh says");
            ways.push(("balanced", SocketAddr::new(ip, 1935)));
        }
        None => not_run("a publisher by load balancer", "this cluster gives no address"),
    }

    // The traffic policy is Local: only nodes that have an activator answer.
    let activators = relay.activators();
    let node = activators[0].object["status"]["hostIP"].as_str().and_then(|ip| ip.parse().ok()).expect("its node");
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().expect("a node port");
    ways.push(("at-the-node", SocketAddr::new(node, u16::try_from(port).expect("a port"))));

    for (name, address) in ways {
        let tap = Tap::before(address);
        let mut publisher = published(&tap, name);
        receives(&relay.sink, name, 50);
        publisher.interrupt();
        assert_arrived_whole(&tap.only().publisher.media, ended(&relay.sink, name).media());
    }
}
