//! Mounts the root filesystem and starts the process in it.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use rbuild_rooted::{FileKind, Follow, NewDirs, Root};
use rbuild_sandbox::{Helper, Launch, Mount, MountSource, Resources, Running, Spec, Stdio};
use rbuild_snapshot::Active;
use rbuild_types::Stream;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::hub::Hub;
use super::{pipe, thread};
use crate::network::Place;
use crate::{ContainerError, Orders, parent};

/// Directories that are made for what is mounted.
const NEW_DIRECTORIES: NewDirs = NewDirs { mode: 0o755, owner: Some((0, 0)) };
/// How much of a terminal's output is read at once.
const BLOCK: usize = 32 << 10;

/// Starts the process; its number on the host, and its terminal, which is to be read.
pub(super) fn start(
    orders: &Orders,
    hub: &Hub,
    resources: &Resources,
) -> Result<(Running, u32, Option<OwnedFd>), ContainerError> {
    // It gets ready while the root filesystem is mounted.
    let helper = Helper::start(&orders.helper)?;
    let active = Active::new(&orders.directory, orders.lowers.clone())?;
    let root = match orders.lasting {
        true => active.mount_lasting()?,
        false => active.mount()?,
    };
    let root = Root::from_fd(root);
    let mut spec = Spec { resources: resources.clone(), ..orders.spec.clone() };
    for mount in &spec.mounts {
        root.create_dir_all(&mount.target, NEW_DIRECTORIES)?;
    }
    let mut mounts = Vec::new();
    for bind in &orders.binds {
        match bind.path.is_dir() {
            true => drop(root.create_dir_all(&bind.target, NEW_DIRECTORIES)?),
            false => placeholder(&root, &bind.target)?,
        }
        spec.mounts.push(Mount {
            target: bind.target.clone(),
            source: MountSource::whole(mounts.len()),
            read_only: bind.read_only,
            no_suid: bind.no_suid,
            no_exec: bind.no_exec,
        });
        mounts.push(rbuild_snapshot::bind(&bind.path)?);
    }
    for directory in ["/proc", "/sys", "/dev"] {
        root.create_dir_all(directory, NEW_DIRECTORIES)?;
    }
    for file in &spec.files {
        placeholder(&root, &file.path)?;
    }
    // `/dev` is not that of the root filesystem.
    for node in spec.devices.iter().filter(|node| !node.path.starts_with("/dev/")) {
        placeholder(&root, &node.path)?;
    }
    let (stdio, input) = match (spec.terminal, orders.open_stdin) {
        (true, _) => (Stdio::Terminal, None),
        (false, true) => {
            let (read, write) = pipe()?;
            (Stdio::Capture { stdin: Some(read) }, Some(write))
        }
        (false, false) => (Stdio::Capture { stdin: None }, None),
    };
    let has_terminal = spec.terminal;
    let network = match &*hub.network() {
        None => None,
        Some(live) => {
            live.connected().networks.iter().for_each(|place| add_host(&mut spec, place));
            Some(live.netns().try_clone_to_owned()?)
        }
    };
    let program = orders.helper.clone();
    let launch = Launch { helper: program, spec, root: root.into(), mounts, stdio, network };
    let mut running = helper.launch(launch)?;
    let terminal = has_terminal.then(|| running.terminal()).transpose()?;
    let pid = running.executed()?;
    let output = terminal.as_ref().map(OwnedFd::try_clone).transpose()?;
    hub.process_started(running.signaller()?, input, terminal, hold(pid));
    Ok((running, pid, output))
}

/// The process, by its number and its pidfd; nothing when it has ended already.
fn hold(pid: u32) -> Option<(u32, Arc<OwnedFd>)> {
    let process = pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()?;
    // The number may have become another's before it was held, though not since.
    let own = parent(pid).and_then(parent) == Some(std::process::id());
    own.then(|| (pid, Arc::new(process)))
}

/// Starts the thread that reads the process' terminal. It ends with the last process that has it
/// open.
pub(super) fn pump(hub: &Arc<Hub>, terminal: OwnedFd) -> std::io::Result<JoinHandle<()>> {
    let hub = hub.clone();
    thread("terminal", move || read_terminal(&hub, terminal))
}

/// Lets the container find itself: the address of its host name.
fn add_host(spec: &mut Spec, place: &Place) {
    let line = format!("{}\t{}\n", place.address, spec.host_names());
    if let Some(hosts) = spec.files.iter_mut().find(|file| file.path == "/etc/hosts") {
        hosts.content.extend_from_slice(line.as_bytes());
    }
}

/// Passes on what the process writes until the last one that has the terminal open is gone, which
/// reads as `EIO`.
fn read_terminal(hub: &Hub, terminal: OwnedFd) {
    let mut terminal = File::from(terminal);
    let mut block = vec![0; BLOCK];
    loop {
        match terminal.read(&mut block) {
            Ok(0) => return,
            Ok(count) => hub.wrote(Stream::Stdout, &block[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// An empty file to be mounted over, unless there is something.
fn placeholder(root: &Root, path: &str) -> Result<(), ContainerError> {
    let resolved = root.resolve(path, Follow::Yes)?;
    match resolved.found {
        Some(found) if found.kind == FileKind::Directory => Err(ContainerError::Refused(format!(
            "{path} is a directory in the image: a file cannot be put there"
        ))),
        Some(_) => Ok(()),
        None => {
            if let Some(parent) = resolved.path.parent() {
                root.create_dir_all(parent, NEW_DIRECTORIES)?;
            }
            root.create_file(&resolved.path, 0o644)?;
            Ok(())
        }
    }
}
