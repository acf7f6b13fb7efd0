//! What a container may use and do, as `HostConfig` of Docker's `container inspect`.

use std::collections::BTreeMap;

use rbuild::{ContainerRecord, DeviceRequest, MountSource, Privileges, Restart, SystemCalls};
use serde_json::{Value, json};

/// Docker's size of `/dev/shm` where nobody asks for another.
const SHM_SIZE: u64 = 64 << 20;

/// What was asked for.
pub fn document(record: &ContainerRecord) -> Value {
    let (spec, privileges) = (&record.spec, &record.privileges);
    let resources = &spec.resources;
    let (policy, count) = match record.restart {
        Restart::No => ("no", 0),
        Restart::OnFailure { limit } => ("on-failure", limit.unwrap_or(0)),
        Restart::Always => ("always", 0),
        Restart::UnlessStopped => ("unless-stopped", 0),
    };
    let mode = |is_host: bool| if is_host { "host" } else { "private" };
    let limit = |limit: Option<u64>| limit.map_or(json!(-1), |limit| json!(limit));
    let ulimits = spec
        .rlimits
        .iter()
        .map(|it| json!({ "Name": it.name, "Soft": limit(it.soft), "Hard": limit(it.hard) }));
    let (devices, requests) = devices(privileges);
    json!({
        "AutoRemove": record.auto_remove,
        "RestartPolicy": { "Name": policy, "MaximumRetryCount": count },
        "ReadonlyRootfs": spec.read_only,
        "Privileged": spec.privileged,
        "CapAdd": capabilities(&privileges.cap_add),
        "CapDrop": capabilities(&privileges.cap_drop),
        "SecurityOpt": security_options(privileges),
        "GroupAdd": listed(privileges.groups.clone()),
        "Devices": devices,
        "DeviceRequests": requests,
        "Init": spec.init,
        "Sysctls": spec.sysctls,
        "Tmpfs": tmpfs(record),
        "IpcMode": mode(spec.shared.ipc),
        "UTSMode": if spec.shared.uts { "host" } else { "" },
        "CgroupnsMode": "private",
        "ShmSize": spec.shm_size.unwrap_or(SHM_SIZE),
        "Ulimits": ulimits.collect::<Value>(),
        "Memory": resources.memory.unwrap_or(0),
        "MemorySwap": resources.memory_and_swap().unwrap_or(0),
        "NanoCpus": resources.nano_cpus.unwrap_or(0),
        "CpuShares": resources.cpu_shares.unwrap_or(0),
        "CpuPeriod": resources.cpu_period.unwrap_or(0),
        "CpuQuota": resources.cpu_quota.unwrap_or(0),
        "CpusetCpus": resources.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": resources.cpuset_mems.clone().unwrap_or_default(),
        "PidsLimit": resources.pids,
        "CgroupParent": resources.cgroup_parent.clone().unwrap_or_default(),
        "OomScoreAdj": spec.oom_score_adj.unwrap_or(0),
        "OomKillDisable": false,
    })
}

/// An empty list is none, as Docker prints it.
fn listed(texts: Vec<String>) -> Value {
    if texts.is_empty() { Value::Null } else { json!(texts) }
}

/// In the kernel's spelling.
fn capabilities(names: &[String]) -> Value {
    let spelled = |name: &String| {
        let name = name.trim().to_ascii_uppercase();
        match name.strip_prefix("CAP_").unwrap_or(&name) {
            "ALL" => "ALL".to_owned(),
            bare => format!("CAP_{bare}"),
        }
    };
    listed(names.iter().map(spelled).collect())
}

fn security_options(privileges: &Privileges) -> Value {
    let mut options = Vec::new();
    if privileges.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match &privileges.system_calls {
        SystemCalls::Docker => {}
        SystemCalls::All => options.push("seccomp=unconfined".to_owned()),
        SystemCalls::Profile { name, .. } => options.push(format!("seccomp={name}")),
    }
    if privileges.unmasked {
        options.push("systempaths=unconfined".to_owned());
    }
    listed(options)
}

/// Those of the host, and those that are described.
fn devices(privileges: &Privileges) -> (Value, Value) {
    let (mut devices, mut described) = (Vec::new(), Vec::new());
    for device in &privileges.devices {
        match device {
            DeviceRequest::Path { host, target } => devices.push(json!({
                "PathOnHost": host.display().to_string(),
                "PathInContainer": target,
                "CgroupPermissions": "rwm",
            })),
            DeviceRequest::Described(name) => described.push(name.clone()),
        }
    }
    let requests = match described.is_empty() {
        true => Value::Null,
        false => json!([{ "Driver": "cdi", "DeviceIDs": described }]),
    };
    (Value::from(devices), requests)
}

/// Options of each, in Docker's words.
fn tmpfs(record: &ContainerRecord) -> BTreeMap<&str, String> {
    let mounts = record.spec.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Tmpfs { size, mode, .. } => {
            let word = |is: bool, yes: &'static str, no: &'static str| if is { yes } else { no };
            let mut options = vec![
                word(mount.read_only, "ro", "rw").to_owned(),
                word(mount.no_exec, "noexec", "exec").to_owned(),
                word(mount.no_suid, "nosuid", "suid").to_owned(),
                format!("mode={mode:o}"),
            ];
            options.extend(size.map(|size| format!("size={size}")));
            Some((mount.target.as_str(), options.join(",")))
        }
        MountSource::Detached { .. } => None,
    });
    mounts.collect()
}
