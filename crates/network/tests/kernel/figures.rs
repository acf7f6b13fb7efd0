//! How long a container's network takes, for people to judge:
//! `cargo test --release -p rbuild-network --test kernel -- --ignored figures --nocapture`.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rbuild_network::nat::{Nat, Rules};
use rbuild_network::netns;
use rbuild_network::publish::{Protocol, PublishedPort};

use crate::scene::{Machine, bridge, endpoint, has_root};

/// Containers that are started one after the other.
const ROUNDS: u8 = 50;

#[test]
#[ignore = "prints figures"]
fn figures() {
    if !has_root("figures") {
        return;
    }
    let host = Machine::new();
    let net = bridge("rbuild0", &["172.17.0.1/16"]);
    let mut rows: Vec<(&str, Vec<Duration>)> = Vec::new();
    let mut note = |what: &'static str, since: Instant| {
        let took = since.elapsed();
        match rows.iter_mut().find(|(name, _)| *name == what) {
            Some((_, all)) => all.push(took),
            None => rows.push((what, vec![took])),
        }
    };
    for round in 0..ROUNDS {
        let place = endpoint(&net, &[&format!("172.17.1.{round}/16")]);
        let ports = vec![PublishedPort {
            host: format!("0.0.0.0:{}", 8000 + u16::from(round)).parse().unwrap(),
            container_port: 80,
            protocol: Protocol::Tcp,
        }];
        let rules = Rules { endpoints: vec![place.clone()], ports };
        // In the host's namespace, where a supervisor is.
        host.within(|| {
            let begun = Instant::now();
            let netns = netns::create().unwrap();
            note("namespace", begun);
            let step = Instant::now();
            let mut links = rbuild_network::link::Links::open().unwrap();
            links.ensure_bridge(&net).unwrap();
            note("bridge", step);
            let step = Instant::now();
            let port = links.connect(netns.as_fd(), &place).unwrap();
            note("connect", step);
            let step = Instant::now();
            let nat = Nat::open("figures", &rules).unwrap();
            note("rules", step);
            note("all of it", begun);
            let step = Instant::now();
            links.disconnect(&port).unwrap();
            note("disconnect", step);
            let step = Instant::now();
            drop(nat);
            note("rules gone", step);
            let step = Instant::now();
            drop(netns);
            note("namespace gone", step);
        });
    }
    for (what, mut all) in rows {
        all.sort();
        let (middle, last) = (all[all.len() / 2], all[all.len() - 1]);
        println!("{what:>15}: least {:.2?}, middle {middle:.2?}, most {last:.2?}", all[0]);
    }
}
