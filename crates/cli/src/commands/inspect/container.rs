//! A container as Docker's `container inspect` shows it.

use std::time::Duration;

use rbuild::{BuildError, Container, Exit, Health, MountedFrom, State, Status};
use serde_json::{Value, json};

use super::host_config;
use crate::commands::ps;
use crate::human;

/// What is known of it.
pub fn document(container: &Container) -> Result<Value, BuildError> {
    let (record, state) = (container.record(), container.state()?);
    let spec = &record.spec;
    let time = |nanoseconds: Option<i64>| match nanoseconds {
        Some(nanoseconds) => human::rfc3339(ps::milliseconds(nanoseconds)),
        // What Go prints for a time that never was.
        None => "0001-01-01T00:00:00Z".to_owned(),
    };
    let mounts: Vec<Value> = record
        .mounts
        .iter()
        .map(|mount| {
            let (kind, name, source) = match &mount.source {
                MountedFrom::Path(path) => ("bind", String::new(), path.display().to_string()),
                MountedFrom::Volume { name, .. } => ("volume", name.clone(), String::new()),
                MountedFrom::Anonymous(name) => {
                    let path = container.directory().join(name);
                    ("volume", String::new(), path.display().to_string())
                }
            };
            json!({
                "Type": kind,
                "Name": name,
                "Source": source,
                "Destination": mount.target,
                "RW": !mount.read_only,
            })
        })
        .collect();
    // While it runs, how it ended before says nothing.
    let ended = state.ended.filter(|_| state.status != Status::Running);
    let exit = ended.map(|ended| ended.exit);
    let (program, arguments) = spec.argv.split_first().map_or(("", &[][..]), |(a, b)| (a, b));
    let mut document = json!({
        "Id": record.id,
        "Name": format!("/{}", record.name),
        "Created": time(Some(record.created)),
        "Path": program,
        "Args": arguments,
        "State": {
            "Status": ps::status(&state),
            "Running": state.status == Status::Running,
            "Paused": state.paused,
            "Restarting": state.status == Status::Restarting,
            "OOMKilled": matches!(exit, Some(Exit::OutOfMemory(_))),
            "Dead": false,
            "Pid": state.pid.unwrap_or(0),
            "ExitCode": exit.map_or(0, Exit::code),
            "Error": state.error.clone().unwrap_or_default(),
            "StartedAt": time(state.started),
            "FinishedAt": time(state.ended.map(|ended| ended.at)),
        },
        "Image": record.image_id,
        "RestartCount": state.restarts,
        "LogPath": container.directory().join("log").display().to_string(),
        "HostConfig": host_config::document(record),
        "NetworkSettings": network_settings(&state),
        "Mounts": mounts,
        "Config": {
            "Hostname": spec.hostname,
            "Domainname": spec.domainname,
            "User": spec.user,
            "Tty": spec.terminal,
            "OpenStdin": record.open_stdin,
            "Env": spec.env,
            "Cmd": spec.argv,
            "Image": record.image,
            "WorkingDir": spec.cwd,
            "Labels": record.labels,
            "StopSignal": record.stop.signal.to_string(),
        },
    });
    if let Some(health) = &state.health {
        document["State"]["Health"] = health_of(health);
    }
    if let Some(checks) = &record.health {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        document["Config"]["Healthcheck"] = json!({
            "Test": checks.test(),
            "Interval": nanoseconds(checks.interval),
            "Timeout": nanoseconds(checks.timeout),
            "StartPeriod": nanoseconds(checks.start_period),
            "StartInterval": nanoseconds(checks.start_interval),
            "Retries": checks.retries,
        });
    }
    Ok(document)
}

fn health_of(health: &Health) -> Value {
    let log: Vec<Value> = health
        .log
        .iter()
        .map(|check| {
            json!({
                "Start": human::rfc3339(ps::milliseconds(check.start)),
                "End": human::rfc3339(ps::milliseconds(check.end)),
                "ExitCode": check.exit_code,
                "Output": check.output,
            })
        })
        .collect();
    json!({ "Status": health.status.name(), "FailingStreak": health.failing_streak, "Log": log })
}

fn network_settings(state: &State) -> Value {
    let mut ports = serde_json::Map::new();
    for port in &state.connected.ports {
        let name = format!("{}/{}", port.container_port, port.protocol);
        let binding = json!({ "HostIp": port.host.ip().to_string(), "HostPort": port.host.port().to_string() });
        let bindings = ports.entry(name).or_insert_with(|| json!([]));
        bindings.as_array_mut().into_iter().for_each(|bindings| bindings.push(binding.clone()));
    }
    let mut networks = serde_json::Map::new();
    for place in &state.connected.networks {
        let settings = json!({
            "IPAddress": place.address,
            "IPPrefixLen": place.prefix,
            "Gateway": place.gateway,
            "MacAddress": place.hardware_address,
            "DNSNames": place.names,
        });
        networks.insert(place.network.clone(), settings);
    }
    let first = state.connected.networks.first();
    json!({
        "IPAddress": first.map_or(String::new(), |place| place.address.to_string()),
        "Gateway": first.map_or(String::new(), |place| place.gateway.to_string()),
        "MacAddress": first.map_or("", |place| place.hardware_address.as_str()),
        "Ports": ports,
        "Networks": networks,
    })
}
