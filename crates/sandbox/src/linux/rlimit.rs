//! Limits of the process itself.

use rustix::process::{Resource, Rlimit as Value, setrlimit};

use crate::linux::child::During as _;
use crate::{Rlimit, StartFailure};

/// Sets them. Raising one takes `CAP_SYS_RESOURCE`; a low one may hinder whatever follows.
pub(crate) fn set(limits: &[Rlimit]) -> Result<(), StartFailure> {
    for limit in limits {
        let action = format!("set ulimit {}", limit.name);
        let resource = resource(&limit.name).ok_or("there is none of that name").during(&action)?;
        let value = Value { current: limit.soft, maximum: limit.hard };
        setrlimit(resource, value).during(&action)?;
    }
    Ok(())
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}
