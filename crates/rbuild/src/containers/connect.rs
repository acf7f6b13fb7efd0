//! What a container is told of networks when it starts.

use std::net::IpAddr;

use rbuild_container::network::{Connect, Joining};
use rbuild_network::resolv_conf::{DnsSettings, ResolvConf};
use rbuild_plan::{ExtraHost, HOST_GATEWAY};

use super::{Container, Membership};
use crate::{BuildError, networks};

/// The supervisor's part, the text of `resolv.conf`, and names with addresses.
pub(super) fn settle(
    container: &Container,
) -> Result<(Option<Connect>, String, Vec<ExtraHost>), BuildError> {
    let record = &container.record;
    let refused =
        |error: &dyn std::fmt::Display| BuildError::Request { message: error.to_string() };
    let dns = DnsSettings::parse(&record.dns.servers, &record.dns.search, &record.dns.options)
        .map_err(|error| refused(&error))?;
    let Some(connection) = &record.connection else {
        let text = ResolvConf::on_host(&container.resolv_conf, &dns);
        let loopback = IpAddr::from([127, 0, 0, 1]);
        return Ok((None, text, hosts(&record.hosts, loopback)));
    };
    let joining = connection.networks.iter().map(|membership| joining(container, membership));
    let joining = joining.collect::<Result<Vec<_>, _>>()?;
    let gateway = joining.first().map_or(IpAddr::from([127, 0, 0, 1]), |first| first.gateway);
    let resolver = ResolvConf::parse(&container.resolv_conf).with(&dns).with_resolver();
    let options = resolver.options();
    let connect = Connect {
        networks: joining,
        ports: connection.ports.clone(),
        servers: options.servers,
        forwards_single_labels: options.forwards_single_labels,
    };
    Ok((Some(connect), resolver.text, hosts(&record.hosts, gateway)))
}

/// What the supervisor is told of one network.
pub(super) fn joining(
    container: &Container,
    membership: &Membership,
) -> Result<Joining, BuildError> {
    let record = &container.record;
    let network = networks::find(&container.store, &membership.network)?;
    let mut names = vec![record.name.clone()];
    names.extend(membership.aliases.iter().cloned());
    names.push(record.spec.hostname.clone());
    names.dedup();
    Ok(networks::joining(&container.store, network, names, membership.address))
}

fn hosts(given: &[ExtraHost], gateway: IpAddr) -> Vec<ExtraHost> {
    let settled = |host: &ExtraHost| match host.address.as_str() {
        HOST_GATEWAY => ExtraHost { name: host.name.clone(), address: gateway.to_string() },
        _ => host.clone(),
    };
    given.iter().map(settled).collect()
}
