//! What a container may do, in the words of `docker run`.

use std::path::{Path, PathBuf};

use clap::Args;
use rbuild::{DeviceRequest, Privileges, SystemCalls};

use crate::args::switch;
use crate::failure::Failure;
use crate::output;

/// Most bytes of a seccomp profile.
const MAX_PROFILE: u64 = 4 << 20;

/// Privileges of a container.
#[derive(Debug, Args)]
pub struct PrivilegeArgs {
    /// Keep nothing from it: all capabilities, the host's devices, any system call
    #[arg(long)]
    pub privileged: bool,
    /// Capability that it has besides, such as NET_ADMIN, or ALL; may be repeated
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Capability that it has not, or ALL; may be repeated
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=unconfined, seccomp=FILE (a profile in Docker's form) or
    /// systempaths=unconfined; may be repeated
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Device: HOST_PATH[:PATH[:rwm]], or VENDOR/CLASS=NAME as the Container Device Interface
    /// describes it; may be repeated
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// GPUs of NVIDIA, by way of the Container Device Interface: all, a number, or device=NAME,…
    #[arg(long, value_name = "GPUS")]
    pub gpus: Option<String>,
    /// Supplementary group, by number or by its name in the image; may be repeated
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
}

impl PrivilegeArgs {
    /// The arguments as the engine wants them. Reads a seccomp profile.
    pub fn privileges(&self) -> Result<Privileges, Failure> {
        let mut devices =
            self.device.iter().map(|text| device(text)).collect::<Result<Vec<_>, _>>()?;
        if let Some(text) = &self.gpus {
            devices.extend(gpus(text)?.into_iter().map(DeviceRequest::Described));
        }
        let mut privileges = Privileges {
            privileged: self.privileged,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            groups: self.group_add.clone(),
            devices,
            ..Privileges::default()
        };
        for text in &self.security_opt {
            add_option(text, &mut privileges)?;
        }
        Ok(privileges)
    }
}

/// `--security-opt`: `KEY=VALUE`, or `KEY:VALUE` as it was once.
fn add_option(text: &str, privileges: &mut Privileges) -> Result<(), Failure> {
    let refuse = |why: &str| Failure::usage(format!("--security-opt {text}: {why}"));
    let at = text.find(['=', ':']);
    let (key, value) = at.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
    match (key, value) {
        ("no-new-privileges", value) => {
            let value = switch::parse(value.unwrap_or("true"));
            privileges.no_new_privileges = value.map_err(|why| refuse(&why))?;
        }
        ("seccomp", Some("builtin")) => privileges.system_calls = SystemCalls::Docker,
        ("seccomp", Some("unconfined")) => privileges.system_calls = SystemCalls::All,
        ("seccomp", Some(path)) => privileges.system_calls = profile(path)?,
        ("systempaths", Some("unconfined")) => privileges.unmasked = true,
        // Nothing is confined by either.
        ("apparmor", Some("unconfined")) | ("label", Some("disable")) => {}
        ("apparmor", Some(_)) => without("apparmor", "/sys/module/apparmor", &refuse)?,
        ("label", Some(_)) => without("label", "/sys/fs/selinux", &refuse)?,
        _ => return Err(refuse("it is not supported yet")),
    }
    Ok(())
}

/// Accepts an option of a security module with a word where the host has no such module.
fn without(key: &str, module: &str, refuse: &dyn Fn(&str) -> Failure) -> Result<(), Failure> {
    if Path::new(module).exists() {
        return Err(refuse("profiles and labels are not supported yet"));
    }
    output::note(&format!("--security-opt {key} is ignored: this host has no such module"));
    Ok(())
}

fn profile(path: &str) -> Result<SystemCalls, Failure> {
    let refuse = |why: String| Failure::usage(format!("--security-opt seccomp={path}: {why}"));
    let metadata = fs_err::metadata(path).map_err(Failure::io("read the seccomp profile"))?;
    if !metadata.is_file() || metadata.len() > MAX_PROFILE {
        return Err(refuse("it is no regular file, or too large".to_owned()));
    }
    let text = fs_err::read_to_string(path).map_err(Failure::io("read the seccomp profile"))?;
    Ok(SystemCalls::Profile { name: path.to_owned(), text })
}

/// `--device`.
fn device(text: &str) -> Result<DeviceRequest, Failure> {
    let refuse = |why: &str| {
        Failure::usage_hint(
            format!("--device {text}: {why}"),
            "for example /dev/fuse, /dev/sda:/dev/disk or vendor.com/class=name",
        )
    };
    if !text.starts_with('/') {
        return match text.contains('/') && text.contains('=') {
            true => Ok(DeviceRequest::Described(text.to_owned())),
            false => Err(refuse("neither an absolute path nor the name of a described device")),
        };
    }
    let parts: Vec<&str> = text.split(':').collect();
    let is_rights = |text: &str| !text.is_empty() && text.bytes().all(|it| b"rwm".contains(&it));
    let (host, target, rights) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, rights] if is_rights(rights) => (*host, *host, *rights),
        [host, target] => (*host, *target, "rwm"),
        [host, target, rights] => (*host, *target, *rights),
        _ => return Err(refuse("too many colons")),
    };
    if !target.starts_with('/') || target == "/" {
        return Err(refuse("the path inside is not an absolute path below /"));
    }
    // A node that a process makes opens nothing in any case, so `m` says nothing.
    if !is_rights(rights) || !rights.contains('r') || !rights.contains('w') {
        return Err(refuse("rights other than rwm and rw are not supported yet"));
    }
    Ok(DeviceRequest::Path { host: PathBuf::from(host), target: target.to_owned() })
}

/// `--gpus`: names of described devices.
fn gpus(text: &str) -> Result<Vec<String>, Failure> {
    let named = |name: &str| format!("nvidia.com/gpu={name}");
    let list = text.trim_matches('"').strip_prefix("device=");
    match (text, text.strip_prefix("count=").unwrap_or(text).parse::<u16>(), list) {
        ("all", ..) => Ok(vec![named("all")]),
        (_, Ok(count), _) => Ok((0..count).map(|number| named(&number.to_string())).collect()),
        (_, _, Some(list)) => Ok(list.split(',').map(named).collect()),
        _ => Err(Failure::usage_hint(
            format!("--gpus {text}: it is not supported yet"),
            "give all, a number or device=NAME,…; or name devices that the Container Device \
             Interface describes, such as --device nvidia.com/gpu=all",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(texts: &[&str]) -> Result<Privileges, Failure> {
        let mut privileges = Privileges::default();
        texts.iter().try_for_each(|text| add_option(text, &mut privileges))?;
        Ok(privileges)
    }

    #[test]
    fn options_are_dockers() {
        assert!(options(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(options(&["no-new-privileges:true"]).unwrap().no_new_privileges);
        assert!(!options(&["no-new-privileges", "no-new-privileges=0"]).unwrap().no_new_privileges);
        let open = options(&["seccomp=unconfined", "systempaths:unconfined"]).unwrap();
        assert_eq!((open.system_calls, open.unmasked), (SystemCalls::All, true));
        let usual = options(&["seccomp=builtin", "label=disable", "apparmor=unconfined"]).unwrap();
        assert_eq!(usual, Privileges::default());
        for bad in ["", "seccomp", "seccomp=/none", "no-new-privileges=x", "colour=red"] {
            assert!(options(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_are_paths_or_names() {
        let path = |text: &str| match device(text).unwrap() {
            DeviceRequest::Path { host, target } => (host.display().to_string(), target),
            other => panic!("{text}: {other:?}"),
        };
        let pair = |host: &str, target: &str| (host.to_owned(), target.to_owned());
        assert_eq!(path("/dev/fuse"), pair("/dev/fuse", "/dev/fuse"));
        assert_eq!(path("/dev/fuse:rw"), pair("/dev/fuse", "/dev/fuse"));
        assert_eq!(path("/dev/a:/dev/b"), pair("/dev/a", "/dev/b"));
        assert_eq!(path("/dev/a:/dev/b:mrw"), pair("/dev/a", "/dev/b"));
        let named = DeviceRequest::Described("vendor.com/class=a".to_owned());
        assert_eq!(device("vendor.com/class=a").unwrap(), named);
        for bad in ["", "fuse", "/dev/a:/dev/b:r", "/dev/a:b", "/dev/a:/", "/a:/b:rw:x", "/a:/b:"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn gpus_are_described_devices() {
        assert_eq!(gpus("all").unwrap(), ["nvidia.com/gpu=all"]);
        assert_eq!(gpus("2").unwrap(), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
        assert_eq!(gpus("\"device=0,u\"").unwrap(), ["nvidia.com/gpu=0", "nvidia.com/gpu=u"]);
        for bad in ["", "some", "capabilities=utility", "-1"] {
            assert!(gpus(bad).is_err(), "{bad}");
        }
    }
}
