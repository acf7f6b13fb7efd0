//! What a described device is on this machine, now.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt};
use std::path::Path;

use rbuild_sandbox::{DeviceNode, NodeKind};
use rbuild_solver::{DeviceEdits, HostMount};
use rustix::fs::{major, minor};

use super::document::{Edits, Mount, Node};

/// Permissions of a node that nobody says anything of, as runc has them.
const USUAL_MODE: u32 = 0o666;

/// Adds edits to those of other devices. A later node or mount takes the place of an earlier one.
pub(super) fn add(edits: &Edits, all: &mut DeviceEdits) -> Result<(), String> {
    all.env.extend(edits.env.iter().cloned());
    for node in &edits.device_nodes {
        all.nodes.retain(|other| other.path != node.path);
        all.nodes.push(made(node)?);
    }
    for mount in &edits.mounts {
        all.mounts.retain(|other| other.target != mount.container_path);
        all.mounts.push(shown(mount)?);
    }
    for group in &edits.additional_gids {
        if *group != 0 && !all.groups.contains(group) {
            all.groups.push(*group);
        }
    }
    Ok(())
}

/// A node with all that its description leaves to the host.
fn made(node: &Node) -> Result<DeviceNode, String> {
    let host = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    let described = match node.kind.as_str() {
        "b" => Some(NodeKind::Block),
        "c" | "u" => Some(NodeKind::Character),
        "p" => Some(NodeKind::Fifo),
        _ => None,
    };
    let whole = described.is_some_and(|kind| node.major != 0 || kind == NodeKind::Fifo);
    let there = match fs_err::symlink_metadata(Path::new(host)) {
        Ok(metadata) => Some(metadata),
        Err(_) if whole => None,
        Err(error) => return Err(format!("device {host} cannot be given: {error}")),
    };
    let mode = node.file_mode.or(there.as_ref().map(MetadataExt::mode)).unwrap_or(USUAL_MODE);
    let made = |kind, major, minor| DeviceNode {
        path: node.path.clone(),
        kind,
        major,
        minor,
        mode: mode & 0o777,
        uid: node.uid,
        gid: node.gid,
    };
    if let Some(kind) = described.filter(|_| whole) {
        return Ok(made(kind, node.major, node.minor));
    }
    let (Some(kind), Some(there)) = (there.as_ref().and_then(kind_of), there) else {
        return Err(format!("{host} is no device"));
    };
    if described.is_some_and(|described| described != kind) {
        return Err(format!("device {host} is of another type than {:?}", node.kind));
    }
    Ok(made(kind, major(there.rdev()), minor(there.rdev())))
}

/// A device of the host as it is there.
pub(crate) fn of_host(path: &Path) -> Result<DeviceNode, String> {
    let shown = path.display();
    let there = fs_err::symlink_metadata(path)
        .map_err(|error| format!("device {shown} cannot be given: {error}"))?;
    let kind = kind_of(&there).ok_or_else(|| format!("{shown} is no device"))?;
    Ok(DeviceNode {
        path: shown.to_string(),
        kind,
        major: major(there.rdev()),
        minor: minor(there.rdev()),
        mode: there.mode() & 0o777,
        uid: Some(there.uid()),
        gid: Some(there.gid()),
    })
}

fn kind_of(there: &Metadata) -> Option<NodeKind> {
    let kind = there.file_type();
    let kinds = [
        (kind.is_char_device(), NodeKind::Character),
        (kind.is_block_device(), NodeKind::Block),
        (kind.is_fifo(), NodeKind::Fifo),
    ];
    kinds.into_iter().find_map(|(is, kind)| is.then_some(kind))
}

fn shown(mount: &Mount) -> Result<HostMount, String> {
    let source = Path::new(&mount.host_path);
    if let Err(error) = fs_err::metadata(source) {
        return Err(format!("{} cannot be mounted: {error}", mount.host_path));
    }
    let has = |option: &str| mount.options.iter().any(|given| given == option);
    Ok(HostMount {
        source: source.to_owned(),
        target: mount.container_path.clone(),
        read_only: has("ro"),
        no_suid: has("nosuid"),
        no_exec: has("noexec"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::document::Document;
    use super::*;

    fn nodes(described: &str) -> Result<Vec<DeviceNode>, String> {
        let text = format!(
            "cdiVersion: \"1.0.0\"\nkind: v/c\ndevices: [{{name: a, containerEdits: {{deviceNodes: [{described}]}}}}]"
        );
        let mut all = DeviceEdits::default();
        add(&Document::from_yaml(&text)?.devices[0].container_edits, &mut all)?;
        Ok(all.nodes)
    }

    #[test]
    fn what_is_left_out_is_that_of_the_host() {
        let null = fs_err::metadata("/dev/null").unwrap();
        let node = nodes("{path: /dev/mine, hostPath: /dev/null}").unwrap().remove(0);
        let expected = DeviceNode {
            path: "/dev/mine".to_owned(),
            kind: NodeKind::Character,
            major: 1,
            minor: 3,
            mode: null.mode() & 0o777,
            uid: None,
            gid: None,
        };
        assert_eq!(node, expected);
        let said = "{path: /dev/null, type: c, major: 7, minor: 8, fileMode: 04611, uid: 5}";
        let node = nodes(said).unwrap().remove(0);
        assert_eq!((node.major, node.minor, node.mode, node.uid), (7, 8, 0o611, Some(5)));
        // All is said, so nobody has to be there.
        let node = nodes("{path: /dev/none, type: b, major: 7}").unwrap().remove(0);
        assert_eq!((node.kind, node.mode), (NodeKind::Block, 0o666));
        let twice = nodes("{path: /dev/null}, {path: /dev/null, uid: 9}").unwrap();
        assert_eq!((twice.len(), twice[0].uid), (1, Some(9)));
    }

    #[test]
    fn what_is_no_device_is_not_given() {
        for (node, told) in [
            ("{path: /dev/none}", "/dev/none"),
            ("{path: /etc}", "/etc is no device"),
            ("{path: /dev/null, type: b}", "another type"),
            ("{path: /dev/none, type: c}", "/dev/none"),
        ] {
            let error = nodes(node).unwrap_err();
            assert!(error.contains(told), "{node}: {error}");
        }
    }
}
