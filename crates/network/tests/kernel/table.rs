//! Whose a container's table is, and what stands in its way.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rbuild_network::nat::{self, Nat, NatError, Rules};
use rbuild_network::publish::Protocol;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::scene::{Machine, bridge, endpoint, exchange, has_root, ip};
use crate::town::{HOST, Town, WORLD, port};

#[test]
fn thousands_of_ports_are_one_transaction() {
    if !has_root("thousands_of_ports_are_one_transaction") {
        return;
    }
    let town = Town::new();
    let ports: Vec<_> = (20_000..24_000)
        .map(|number| port(&format!("0.0.0.0:{number}"), number, Protocol::Tcp))
        .collect();
    let _nat = town.open("a", &town.rules(&ports)).unwrap();
    let listener = town.container.listen("0.0.0.0:23999");
    assert_eq!(exchange(&town.world, "203.0.113.1:23999", &listener), ip(WORLD));
}

#[test]
fn one_process_has_a_container_s_table_until_it_ends() {
    if !has_root("one_process_has_a_container_s_table_until_it_ends") {
        return;
    }
    let town = Town::new();
    let rules = town.rules(&[]);
    let nat = town.open("a", &rules).unwrap();
    let second = town.open("a", &rules).unwrap_err();
    assert!(matches!(&second, NatError::Held { table } if table == "rbuild-a"), "{second}");
    let _other = town.open("b", &rules).unwrap();
    drop(nat);
    town.open("a", &rules).unwrap();
}

#[test]
fn a_firewall_that_forwards_nothing_is_found_and_the_commands_open_it() {
    if !has_root("a_firewall_that_forwards_nothing_is_found_and_the_commands_open_it") {
        return;
    }
    let town = Town::new();
    let _nat = town.open("a", &town.rules(&[port("0.0.0.0:80", 80, Protocol::Tcp)])).unwrap();
    let dropping = || town.host.within(nat::dropping_chains).unwrap();
    assert_eq!(dropping(), [], "ours drop nothing by themselves");
    if !town.host.run("nft add table ip filter") {
        return;
    }
    // As Docker sets it up, and a chain beside it that has nothing to do with this.
    let hook = "type filter hook forward priority 0; policy drop;";
    assert!(town.host.run(&format!("nft 'add chain ip filter FORWARD {{ {hook} }}'")));
    assert!(town.host.run("nft 'add chain ip filter OTHER'"));
    let found = dropping();
    assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ip filter FORWARD"]);

    let (outside, inside) = (town.world.listen("0.0.0.0:80"), town.container.listen("0.0.0.0:80"));
    town.container.cannot_reach("203.0.113.2:80");
    for command in found[0].commands() {
        // The shell would take the name for a pattern.
        assert!(town.host.run(&command.replace('"', "\\\"")), "{command}");
    }
    assert_eq!(exchange(&town.container, "203.0.113.2:80", &outside), ip(HOST));
    assert_eq!(exchange(&town.world, "203.0.113.1:80", &inside), ip(WORLD));
    town.world.cannot_reach("172.17.0.2:80");
}

#[test]
fn many_containers_at_once_leave_nothing() {
    if !has_root("many_containers_at_once_leave_nothing") {
        return;
    }
    let host = Machine::new();
    let net = bridge("rbuild0", &["172.17.0.1/16"]);
    // Each as a process of its own would: none knows of the others.
    std::thread::scope(|scope| {
        for first in 0..8 {
            let (host, net) = (&host, &net);
            scope.spawn(move || {
                for second in 2..14 {
                    host.links().ensure_bridge(net).unwrap();
                    let address = format!("172.17.{first}.{second}/16");
                    let place = endpoint(net, &[&address]);
                    let (container, _) = Machine::connected(host, &place);
                    let ports = vec![port("0.0.0.0:80", 80, Protocol::Tcp)];
                    let rules = Rules { endpoints: vec![place], ports };
                    let id = format!("{first}-{second}");
                    let _nat = host.within(|| Nat::open(&id, &rules)).unwrap();
                    let listener = container.listen("0.0.0.0:80");
                    let service = format!("172.17.{first}.{second}:80");
                    assert_eq!(exchange(host, &service, &listener), ip("172.17.0.1"));
                }
            });
        }
    });
    host.remove_in_the_end("rbuild0");
    assert_eq!(host.devices(), ["lo"]);
    assert!(host.run("test -z \"$(nft list tables)\""), "tables are left");
}

/// Says which table the process is to hold until it is killed.
const HOLD: &str = "RBUILD_TEST_HOLD_TABLE";

#[test]
#[ignore = "the part of another test that is killed"]
fn hold_a_table() {
    let Ok(id) = std::env::var(HOLD) else { return };
    let _nat = Nat::open(&id, &Rules::default()).unwrap();
    eprintln!("held");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn a_table_goes_when_its_process_is_killed() {
    if !has_root("a_table_goes_when_its_process_is_killed") {
        return;
    }
    let host = Machine::new();
    // A process is started in the namespace of the thread that starts it.
    let mut holder: Child = host.within(|| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "table::hold_a_table", "--ignored", "--nocapture"])
            .env(HOLD, "a")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let said = BufReader::new(holder.stderr.take().unwrap()).lines();
    assert!(said.map_while(Result::ok).any(|line| line.ends_with("held")));
    let open = || host.within(|| Nat::open("a", &Rules::default()));
    assert!(matches!(open(), Err(NatError::Held { .. })));
    holder.kill().unwrap();
    holder.wait().unwrap();
    open().unwrap();
}

#[test]
fn who_may_not_is_told_what_is_needed() {
    if !has_root("who_may_not_is_told_what_is_needed") {
        return;
    }
    let host = Machine::new();
    let (refused, link) = host.within(|| {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        sets.permitted.remove(CapabilitySet::NET_ADMIN);
        // Of this thread, which ends here.
        set_capabilities(None, sets).unwrap();
        let mut links = rbuild_network::link::Links::open().unwrap();
        let link = links.ensure_bridge(&bridge("rbuild0", &[])).unwrap_err();
        (Nat::open("a", &Rules::default()).unwrap_err(), link)
    });
    assert!(matches!(refused, NatError::Permission), "{refused}");
    assert!(refused.to_string().contains("needs root with CAP_NET_ADMIN"), "{refused}");
    let link = link.to_string();
    assert!(link.starts_with("cannot make the bridge rbuild0: "), "{link}");
    assert!(link.contains("need root with CAP_NET_ADMIN"), "{link}");
}
