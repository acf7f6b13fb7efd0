//! The base images that examples, tests and benches stand on, made from Debian's packages and
//! kept under `target/bases`. None is fetched from an image registry.
//!
//! ```text
//! target/bases/busybox/rootfs/   the files of `busybox:latest`, for `COPY rootfs /`
//! target/bases/busybox/oci/      the same as an OCI layout, for the other tools
//! target/bases/python/oci/       a Debian root with Python, which serves as `python:3.7.4`
//! ```

use std::path::{Path, PathBuf};

use crate::args::Args;
use crate::command::{Cmd, find};
use crate::failure::{Failure, Outcome, fail};
use crate::layout::{self, Image};
use crate::packages::{self, BASES, PEERS};
use crate::paths;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Debian's Python and pip are enough to play any official Python image.
const PYTHON_PACKAGES: &str = "python3,python3-pip,ca-certificates";

/// The program header that names a dynamic loader.
const PT_INTERP: usize = 3;

/// pip settings of this machine that a container needs too, when they are set.
const PIP_SETTINGS: [&str; 5] =
    ["index-url", "extra-index-url", "trusted-host", "proxy", "default-timeout"];

/// `cargo xtask bases`.
pub(crate) fn run(args: &mut Args) -> Outcome {
    args.words()?;
    println!("{}", busybox_rootfs()?.display());
    println!("{}", busybox_layout()?.display());
    packages::ensure_installed(PEERS)?;
    println!("{}", python_layout()?.display());
    Ok(())
}

/// A folder with busybox, its applets as links, users and the usual folders.
pub(crate) fn busybox_rootfs() -> Outcome<PathBuf> {
    kept("busybox/rootfs", |rootfs| {
        for dir in ["bin", "etc", "home", "root", "tmp", "usr/bin", "var/lib"] {
            fs_err::create_dir_all(rootfs.join(dir))?;
        }
        set_mode(&rootfs.join("tmp"), 0o1777)?;
        set_mode(&rootfs.join("root"), 0o700)?;
        let busybox = rootfs.join("bin/busybox");
        fs_err::copy(busybox_program()?, &busybox)?;
        set_mode(&busybox, 0o755)?;
        let applets = Cmd::new(&busybox).arg("--list").output()?;
        for applet in applets.lines().filter(|a| *a != "busybox") {
            fs_err::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet))?;
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\
                      app:x:1000:1000:app:/home/app:/bin/sh\n\
                      nobody:x:65534:65534:nobody:/home:/bin/false\n";
        fs_err::write(rootfs.join("etc/passwd"), passwd)?;
        fs_err::write(rootfs.join("etc/group"), "root:x:0:\napp:x:1000:\nnogroup:x:65534:\n")?;
        Ok(())
    })
}

/// `busybox:latest` as an OCI layout.
pub(crate) fn busybox_layout() -> Outcome<PathBuf> {
    let rootfs = busybox_rootfs()?;
    kept("busybox/oci", |dir| {
        let tar = dir.with_extension("tar");
        layout::pack(&rootfs, &tar)?;
        layout::write(dir, &tar, &Image { tag: "latest", env: &[PATH], cmd: &["sh"] })?;
        Ok(fs_err::remove_file(tar)?)
    })
}

/// A Debian root with Python and a pip that installs system-wide, as an OCI layout.
pub(crate) fn python_layout() -> Outcome<PathBuf> {
    kept("python/oci", |dir| {
        let tar = dir.with_extension("tar");
        let settings = dir.with_extension("pip.conf");
        fs_err::write(&settings, pip_settings())?;
        let sources = apt_sources()?;
        println!("==> a Debian root with Python (once; about a minute)");
        Cmd::new("mmdebstrap")
            .words("--quiet --variant=minbase --skip=output/dev")
            .arg(format!("--include={PYTHON_PACKAGES}"))
            .arg("--customize-hook=ln -s python3 \"$1/usr/bin/python\"")
            .arg("--customize-hook=rm -f \"$1\"/usr/lib/python3*/EXTERNALLY-MANAGED")
            // What this machine trusts and where its packages come from hold inside as well.
            .arg("--customize-hook=copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs")
            .arg(format!("--customize-hook=upload '{}' /etc/pip.conf", settings.display()))
            .arg("--customize-hook=rm -rf \"$1\"/var/cache/apt/* \"$1\"/var/lib/apt/lists/*")
            .arg(codename()?)
            .arg(&tar)
            .args(&sources)
            .output()?;
        layout::write(dir, &tar, &Image { tag: "latest", env: &[PATH], cmd: &["python3"] })?;
        fs_err::remove_file(settings)?;
        Ok(fs_err::remove_file(tar)?)
    })
}

/// Makes `target/bases/NAME` whole or not at all, and only when it is not there.
fn kept(name: &str, make: impl FnOnce(&Path) -> Outcome) -> Outcome<PathBuf> {
    let dir = paths::scratch("bases")?.join(name);
    if dir.is_dir() {
        return Ok(dir);
    }
    let unfinished = dir.with_extension(format!("part{}", std::process::id()));
    fs_err::create_dir_all(&unfinished)?;
    match make(&unfinished) {
        Ok(()) => Ok(fs_err::rename(&unfinished, &dir).map(|()| dir)?),
        Err(failure) => {
            paths::remove(&unfinished)?;
            Err(failure.during(format!("making target/bases/{name}")))
        }
    }
}

/// A busybox that needs no libraries: the installed one, or the one in Debian's package.
fn busybox_program() -> Outcome<PathBuf> {
    if let Some(program) = find("busybox").filter(|p| is_static(p)) {
        return Ok(program);
    }
    if packages::is_root() {
        packages::ensure_installed(BASES)?;
        if let Some(program) = find("busybox").filter(|p| is_static(p)) {
            return Ok(program);
        }
    }
    // Anybody may download a package; only installing it takes root.
    let dir = paths::scratch("bases/busybox/package")?;
    Cmd::new("apt-get").words("-q download busybox-static").dir(&dir).output()?;
    let is_deb = |p: &PathBuf| p.extension().is_some_and(|e| e == "deb");
    let mut files = fs_err::read_dir(&dir)?.flatten().map(|e| e.path());
    let Some(package) = files.find(is_deb) else {
        return fail(format!("apt-get put no package into `{}`", dir.display()));
    };
    Cmd::new("dpkg").arg("-x").arg(package).arg(&dir).output()?;
    ["bin/busybox", "usr/bin/busybox"]
        .iter()
        .map(|p| dir.join(p))
        .find(|p| p.is_file())
        .ok_or_else(|| Failure::new("busybox-static has no busybox in it"))
}

/// Whether an ELF program needs no loader: it has no program header of type PT_INTERP.
fn is_static(program: &Path) -> bool {
    let bytes = fs_err::read(program).unwrap_or_default();
    let number = |at: usize, size: usize| {
        let bytes = bytes.get(at..at + size).unwrap_or_default();
        bytes.iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte))
    };
    // 64-bit, little-endian: what the supported architectures have. Offsets as in elf(5).
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).all(|index| number(table + index * size, 4) != PT_INTERP)
}

/// This machine's package sources, because it can reach them.
fn apt_sources() -> Outcome<Vec<PathBuf>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs_err::read_dir("/etc/apt/sources.list.d") {
        let debian = |p: &PathBuf| p.to_string_lossy().contains("debian");
        files.extend(entries.flatten().map(|e| e.path()).filter(debian));
    }
    let useful =
        |p: &PathBuf| fs_err::read_to_string(p).is_ok_and(|t| t.lines().any(|l| l.contains("deb")));
    files.retain(useful);
    if files.is_empty() { fail("no package sources under /etc/apt") } else { Ok(files) }
}

fn codename() -> Outcome<String> {
    let text = fs_err::read_to_string("/etc/os-release")?;
    let name = text.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME="));
    name.map(str::to_owned).ok_or_else(|| Failure::new("/etc/os-release names no Debian release"))
}

/// The part of this machine's pip configuration that also holds in a container.
fn pip_settings() -> String {
    let listed = Cmd::new("python3").words("-m pip config list").output().unwrap_or_default();
    let mut text = String::from("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n");
    for line in listed.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let name = key.rsplit('.').next().unwrap_or(key);
        if PIP_SETTINGS.contains(&name) {
            let value = value.trim_matches('\'').replace("\\n", " ");
            text.push_str(&format!("{name} = {value}\n"));
        }
    }
    text
}

fn set_mode(path: &Path, mode: u32) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_without_a_loader_are_static() {
        // The tests themselves are linked statically, see .cargo/config.toml.
        let own = std::env::current_exe().unwrap();
        assert_eq!(is_static(&own), cfg!(target_feature = "crt-static"));
        assert!(!is_static(Path::new("/bin/sh")));
        assert!(!is_static(Path::new("/etc/passwd")));
        assert!(!is_static(Path::new("/no/such")));
    }
}
