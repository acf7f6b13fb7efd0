//! A container as Docker's `container inspect` shows it.

use rbuild::{BuildError, Container, Exit, MountedFrom, Restart, Status};
use serde_json::{Value, json};

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
    let (policy, count) = match record.restart {
        Restart::No => ("no", 0),
        Restart::OnFailure { limit } => ("on-failure", limit.unwrap_or(0)),
        Restart::Always => ("always", 0),
        Restart::UnlessStopped => ("unless-stopped", 0),
    };
    let exit = state.ended.map(|ended| ended.exit);
    let (program, arguments) = spec.argv.split_first().map_or(("", &[][..]), |(a, b)| (a, b));
    Ok(json!({
        "Id": record.id,
        "Name": format!("/{}", record.name),
        "Created": time(Some(record.created)),
        "Path": program,
        "Args": arguments,
        "State": {
            "Status": ps::status(&state),
            "Running": state.status == Status::Running,
            "Paused": false,
            "Restarting": state.status == Status::Restarting,
            "OOMKilled": matches!(exit, Some(Exit::OutOfMemory(_))),
            "Dead": false,
            "Pid": state.pid.unwrap_or(0),
            "ExitCode": exit.map_or(0, Exit::code),
            "Error": state.error.unwrap_or_default(),
            "StartedAt": time(state.started),
            "FinishedAt": time(state.ended.map(|ended| ended.at)),
        },
        "Image": record.image_id,
        "RestartCount": state.restarts,
        "LogPath": container.directory().join("log").display().to_string(),
        "HostConfig": {
            "AutoRemove": record.auto_remove,
            "RestartPolicy": { "Name": policy, "MaximumRetryCount": count },
            "ReadonlyRootfs": spec.read_only,
            "Privileged": spec.privileged,
        },
        "Mounts": mounts,
        "Config": {
            "Hostname": spec.hostname,
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
    }))
}
