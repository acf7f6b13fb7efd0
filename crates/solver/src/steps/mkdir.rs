//! WORKDIR: makes a directory where there is none.

use rbuild_cache::SnapshotId;
use rbuild_plan::op::Mkdir;
use rbuild_rooted::{Follow, NewDirs, Time};
use rbuild_sandbox::linux::user;

use crate::error::StepError;
use crate::steps::active::{Writing, nothing};
use crate::steps::{Executed, Job};

/// Largest passwd or group file that is read.
pub(crate) const MAX_ACCOUNTS: u64 = 10 << 20;

pub(crate) fn execute(
    job: &Job<'_>,
    op: &Mkdir,
    chain: &[SnapshotId],
) -> Result<Executed, StepError> {
    let writing =
        Writing::start(&job.world, "workdir", chain, nothing(job.world.store)?, job.cancel)?;
    {
        let root = writing.mount()?;
        let exists = root.stat(&op.path, Follow::Yes)?.is_some_and(|found| found.is_dir());
        if !exists {
            let owner = owner(&root, &op.user)?;
            let made =
                root.create_dir_all(&op.path, NewDirs { mode: 0o755, owner: Some(owner) })?;
            if let Some(sec) = op.created {
                let time = Time { sec, nsec: 0 };
                made.created.iter().try_for_each(|path| root.set_times(path, time, time))?;
            }
        }
    }
    Ok(Executed { made: writing.publish(job)?, log: None, changed: None })
}

/// The ids of `USER` in a root filesystem; root when nothing is written.
fn owner(root: &rbuild_rooted::Root, user: &str) -> Result<(u32, u32), StepError> {
    if user.is_empty() {
        return Ok((0, 0));
    }
    let (passwd, group) = accounts(root)?;
    // As for `--chown`: a number alone is user and group.
    user::lookup_owner(user, &passwd, &group).map_err(|error| StepError::Missing(error.to_string()))
}

/// `/etc/passwd` and `/etc/group` of a root filesystem; empty when they are not there.
pub(crate) fn accounts(root: &rbuild_rooted::Root) -> Result<(Vec<u8>, Vec<u8>), StepError> {
    let read = |path: &str| match root.read_small(path, MAX_ACCOUNTS) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        other => other,
    };
    Ok((read("etc/passwd")?, read("etc/group")?))
}
