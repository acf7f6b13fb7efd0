//! `run --mount type=…,source=…,target=…`.

use rbuild::{Hold, Tmpfs, Volume, VolumeSource};

use crate::args::{switch, tmpfs, volume};
use crate::failure::Failure;

/// What one `--mount` is.
#[derive(Debug, PartialEq, Eq)]
pub enum Mounted {
    /// A path of the host, a volume or a cache mount.
    Volume(Volume),
    /// Memory.
    Tmpfs(Tmpfs),
}

/// Reads one `--mount`.
pub fn parse(text: &str) -> Result<Mounted, Failure> {
    let refuse = |why: &str| {
        Failure::usage_hint(
            format!("--mount {text}: {why}"),
            "for example type=bind,source=/host,target=/path or \
             type=volume,source=cache:ID,target=/path,readonly",
        )
    };
    let (mut kind, mut source, mut target) = ("volume", None, None);
    let (mut read_only, mut hold) = (false, None);
    let (mut size, mut mode) = (None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, "true"));
        let is = || switch::parse(value).map_err(|why| refuse(&format!("{key}: {why}")));
        match key {
            "type" => kind = value,
            "source" | "src" => source = Some(value),
            "target" | "destination" | "dst" => target = Some(value),
            "readonly" | "ro" => read_only = is()?,
            "tmpfs-size" => {
                size = Some(tmpfs::size(value).ok_or_else(|| refuse("tmpfs-size is no size"))?);
            }
            "tmpfs-mode" => {
                let octal = tmpfs::mode(value);
                mode = Some(octal.ok_or_else(|| refuse("tmpfs-mode is no octal number"))?);
            }
            "sharing" => {
                hold = Some(match value {
                    "shared" => Hold::Shared,
                    "locked" => Hold::Alone,
                    _ => return Err(refuse("sharing is shared or locked")),
                });
            }
            _ => return Err(refuse(&format!("`{key}` is not supported yet"))),
        }
    }
    let target = target.filter(|target| target.starts_with('/') && *target != "/");
    let target = target.ok_or_else(|| refuse("target is not an absolute path below /"))?.to_owned();
    if kind != "tmpfs" && (size.is_some() || mode.is_some()) {
        return Err(refuse("only a tmpfs has a size and a mode"));
    }
    let source = match (kind, source) {
        ("tmpfs", None) if hold.is_none() => {
            let usual = Tmpfs::new(target);
            let mode = mode.unwrap_or(usual.mode);
            return Ok(Mounted::Tmpfs(Tmpfs { size, mode, read_only, ..usual }));
        }
        ("tmpfs", _) => return Err(refuse("a tmpfs has no source")),
        ("volume", None) => VolumeSource::Anonymous,
        ("volume", Some(name)) => match name.strip_prefix("cache:") {
            Some(id) if !id.is_empty() => {
                VolumeSource::Cache { id: id.to_owned(), hold: hold.take().unwrap_or(Hold::Shared) }
            }
            _ if name.is_empty() || name.contains(['/', ':']) => {
                return Err(refuse("source is no name of a volume"));
            }
            _ => VolumeSource::Named(name.to_owned()),
        },
        ("bind", Some(path)) => {
            // Unlike `--volume`, which makes what is not there.
            if !std::path::Path::new(path).exists() {
                return Err(refuse("the source path does not exist"));
            }
            VolumeSource::Path(volume::absolute(path))
        }
        ("bind", None) => return Err(refuse("no source")),
        (other, _) => return Err(refuse(&format!("type {other} is not supported yet"))),
    };
    if hold.is_some() {
        return Err(refuse("only cache mounts have a way of sharing"));
    }
    Ok(Mounted::Volume(Volume { source, target, read_only }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_what_docker_says() {
        let mounted = |text: &str| match parse(text).unwrap() {
            Mounted::Volume(volume) => volume,
            other => panic!("{text}: {other:?}"),
        };
        let bind = mounted("type=bind,src=/,dst=/x,readonly");
        assert_eq!((bind.source, bind.read_only), (VolumeSource::Path("/".into()), true));
        let named = mounted("source=data,target=/x,ro=false");
        assert_eq!((named.source, named.read_only), (VolumeSource::Named("data".into()), false));
        assert_eq!(mounted("target=/x").source, VolumeSource::Anonymous);
        let cache = |id: &str, hold| VolumeSource::Cache { id: id.into(), hold };
        let shared = mounted("type=volume,source=cache:/root/.cache,target=/x");
        assert_eq!(shared.source, cache("/root/.cache", Hold::Shared));
        let locked = mounted("source=cache:a:b,target=/x,sharing=locked");
        assert_eq!(locked.source, cache("a:b", Hold::Alone));
        let memory = |text: &str| match parse(text).unwrap() {
            Mounted::Tmpfs(tmpfs) => tmpfs,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(memory("type=tmpfs,target=/x"), Tmpfs::new("/x"));
        let given = Tmpfs { size: Some(1 << 20), mode: 0o700, ..Tmpfs::new("/x") };
        assert_eq!(memory("type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=700"), given);
        for bad in [
            "",
            "target=x",
            "target=/",
            "type=bind,target=/x",
            "type=bind,source=/nope/nope,target=/x",
            "type=npipe,target=/x",
            "type=tmpfs,target=/x,tmpfs-size=x",
            "type=tmpfs,target=/x,tmpfs-mode=8",
            "source=a,target=/x,tmpfs-size=1",
            "type=tmpfs,source=a,target=/x",
            "source=a/b,target=/x",
            "source=cache:,target=/x",
            "source=a,target=/x,sharing=locked",
            "source=cache:a,target=/x,sharing=private",
            "target=/x,readonly=maybe",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
