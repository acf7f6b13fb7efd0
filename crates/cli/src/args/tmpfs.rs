//! `run --tmpfs PATH[:OPTIONS]`.

use rbuild::Tmpfs;

use crate::failure::Failure;

/// Reads one `--tmpfs`. Of options that contradict each other the last one counts.
pub fn parse(text: &str) -> Result<Tmpfs, Failure> {
    let refuse = |why: &str| {
        Failure::usage_hint(
            format!("--tmpfs {text}: {why}"),
            "for example --tmpfs /run:size=64m,mode=1770,exec",
        )
    };
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    if !target.starts_with('/') || target == "/" {
        return Err(refuse("not an absolute path below /"));
    }
    let mut tmpfs = Tmpfs::new(target);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let wrong = || refuse(&format!("{option} makes no sense"));
        let number = |value: &str| value.parse::<u32>().map_err(|_| wrong());
        match key {
            "size" => tmpfs.size = Some(size(value).ok_or_else(wrong)?),
            "mode" => tmpfs.mode = mode(value).ok_or_else(wrong)?,
            "uid" => tmpfs.owner.0 = number(value)?,
            "gid" => tmpfs.owner.1 = number(value)?,
            "nr_inodes" => tmpfs.files = Some(size(value).ok_or_else(wrong)?),
            _ if !value.is_empty() => return Err(refuse(&format!("{key} is not supported yet"))),
            "ro" => tmpfs.read_only = true,
            "rw" => tmpfs.read_only = false,
            "noexec" => tmpfs.no_exec = true,
            "exec" => tmpfs.no_exec = false,
            "nosuid" => tmpfs.no_suid = true,
            "suid" => tmpfs.no_suid = false,
            // Devices are never opened through it.
            "nodev" => {}
            _ => return Err(refuse(&format!("{key} is not supported yet"))),
        }
    }
    Ok(tmpfs)
}

/// A number of bytes of which there is at least one: the kernel takes 0 for no limit.
pub fn size(text: &str) -> Option<u64> {
    rbuild::ram_in_bytes(text).filter(|size| *size > 0)
}

/// Permissions in octal digits.
pub fn mode(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_dockers() {
        assert_eq!(parse("/run").unwrap(), Tmpfs::new("/run"));
        assert_eq!(parse("/run:").unwrap(), Tmpfs::new("/run"));
        let all = "/x:rw,ro,noexec,exec,nodev,suid,size=64k,mode=0770,uid=1,gid=2,nr_inodes=1k";
        let expected = Tmpfs {
            target: "/x".to_owned(),
            size: Some(64 << 10),
            files: Some(1 << 10),
            mode: 0o770,
            owner: (1, 2),
            read_only: true,
            no_suid: false,
            no_exec: false,
        };
        assert_eq!(parse(all).unwrap(), expected);
        for bad in [
            "run",
            "/",
            "",
            "/x:size=",
            "/x:size=many",
            "/x:size=0",
            "/x:mode=9",
            "/x:mode=77777",
            "/x:dev",
            "/x:colour=red",
            "/x:uid=-1",
            "/x:ro=1",
            "/x:mode=+7",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
