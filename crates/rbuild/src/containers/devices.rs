//! The devices of a container, as they are on this machine when it starts.

use std::path::{Path, PathBuf};

use rbuild_container::Bind;
use rbuild_plan::op::Device;
use rbuild_plan::{AskedDevice, Entitlement};
use rbuild_sandbox::{DeviceNode, NodeKind, Spec};
use rbuild_solver::{DeviceEdits, Devices as _};
use rbuild_types::Span;

use super::process::merged;
use super::{DeviceRequest, Privileges};
use crate::BuildError;
use crate::devices::{CdiDevices, node};

/// Devices that a program of their vendor describes.
const NVIDIA: &str = "nvidia.com/";
/// Where the host's devices are.
const DEV: &str = "/dev";
/// What of it is no device of the host, but a place that every container has for itself.
const NOT_SHOWN: [&str; 6] = ["pts", "shm", "fd", "mqueue", "console", "ptmx"];
/// How deep directories of devices are looked into.
const MAX_DEPTH: u32 = 8;

/// Adds what was asked for to what runs and what is mounted.
pub(super) fn add(
    privileges: &Privileges,
    directories: &[PathBuf],
    spec: &mut Spec,
    binds: &mut Vec<Bind>,
) -> Result<(), BuildError> {
    if spec.shared.ipc && !binds.iter().any(|bind| bind.target == "/dev/shm") {
        binds.push(plain("/dev/shm".into(), "/dev/shm".to_owned()));
    }
    let mut all = DeviceEdits::default();
    let mut described = Vec::new();
    for request in &privileges.devices {
        match request {
            DeviceRequest::Path { host, target } => below(host, target, &mut all.nodes)?,
            DeviceRequest::Described(name) => {
                described.push(Device { name: name.clone(), required: true })
            }
        }
    }
    let edits = edits(described, directories)?;
    all.nodes.extend(edits.nodes);
    if privileges.privileged {
        of_host(Path::new(DEV), 0, &mut all.nodes);
    }
    spec.env = merged(spec.env.drain(..).chain(edits.env));
    spec.groups.extend(edits.groups.iter().map(u32::to_string));
    binds.extend(edits.mounts.into_iter().map(|mount| Bind {
        read_only: mount.read_only,
        no_suid: mount.no_suid,
        no_exec: mount.no_exec,
        ..plain(mount.source, mount.target)
    }));
    for node in all.nodes {
        if !spec.devices.iter().any(|there| there.path == node.path) {
            spec.devices.push(node);
        }
    }
    Ok(())
}

fn plain(path: PathBuf, target: String) -> Bind {
    Bind { path, target, read_only: false, no_suid: false, no_exec: false }
}

/// What descriptions say.
fn edits(devices: Vec<Device>, directories: &[PathBuf]) -> Result<DeviceEdits, BuildError> {
    if devices.is_empty() {
        return Ok(DeviceEdits::default());
    }
    let refused = |message: String| BuildError::Request { message };
    let asked =
        devices.iter().map(|device| AskedDevice { device: device.clone(), span: Span::default() });
    // Whoever runs a container may give it anything.
    let allow = [Entitlement::Device(None)].into();
    let (found, _) =
        CdiDevices::settle(&asked.collect::<Vec<_>>(), directories, &allow).map_err(|errors| {
            let told = errors.iter().map(|error| match &error.help {
                Some(help) => format!("{}: {help}", error.message),
                None => error.message.clone(),
            });
            let mut told = told.collect::<Vec<_>>().join("; ");
            if told.contains(NVIDIA) {
                told.push_str(" (`nvidia-ctk cdi generate` describes those of NVIDIA)");
            }
            refused(told)
        })?;
    found.edits(&devices).map_err(|error| refused(error.to_string()))
}

/// The device at `host`, or those below it.
fn below(host: &Path, target: &str, nodes: &mut Vec<DeviceNode>) -> Result<(), BuildError> {
    let refused = |message: String| BuildError::Request { message };
    // As in Docker, a link stands for what it leads to.
    let real = fs_err::canonicalize(host)
        .map_err(|error| refused(format!("device {} cannot be given: {error}", host.display())))?;
    if !real.is_dir() {
        let mut node = node::of_host(&real).map_err(refused)?;
        node.path = target.to_owned();
        nodes.push(node);
        return Ok(());
    }
    let mut found = Vec::new();
    of_host(&real, 0, &mut found);
    if found.is_empty() {
        return Err(refused(format!("there is no device in {}", host.display())));
    }
    for mut node in found {
        let name = Path::new(&node.path).strip_prefix(&real).unwrap_or(Path::new(""));
        node.path = Path::new(target).join(name).display().to_string();
        nodes.push(node);
    }
    Ok(())
}

/// All devices below a directory of the host, as far as their names are text.
fn of_host(directory: &Path, depth: u32, nodes: &mut Vec<DeviceNode>) {
    for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        let is_own = directory == Path::new(DEV) && NOT_SHOWN.iter().any(|it| name == *it);
        if is_own || name.to_str().is_none_or(|name| name.starts_with('.')) {
            continue;
        }
        if kind.is_dir() && depth < MAX_DEPTH {
            of_host(&path, depth + 1, nodes);
        } else if let Ok(node) = node::of_host(&path)
            && node.kind != NodeKind::Fifo
        {
            nodes.push(node);
        }
    }
}
