//! The Debian packages that the chores use, in one place.

use crate::args::Args;
use crate::command::{Cmd, find};
use crate::failure::{Outcome, ensure, fail};

/// A package and the program that shows that it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    program: &'static str,
}

const fn package(name: &'static str, program: &'static str) -> Package {
    Package { name, program }
}

/// What building needs: a C compiler for the bundled SQLite, and the linker.
pub(crate) const BUILD: &[Package] = &[package("build-essential", "cc")];

/// What the base images are made from.
pub(crate) const BASES: &[Package] = &[package("busybox-static", "busybox")];

/// What the tests and the shared cases call.
pub(crate) const TESTS: &[Package] = &[
    package("git", "git"),
    package("python3", "python3"),
    package("mmdebstrap", "mmdebstrap"),
    package("zstd", "zstd"),
    package("xz-utils", "xz"),
    package("bzip2", "bzip2"),
    package("libcap2-bin", "setcap"),
    package("openssh-client", "ssh-agent"),
    package("openssl", "openssl"),
    package("nftables", "nft"),
    package("iproute2", "ip"),
    package("uidmap", "newuidmap"),
    package("procps", "ps"),
];

/// The other tools that take images, and the registry between them.
pub(crate) const PEERS: &[Package] = &[
    package("mmdebstrap", "mmdebstrap"),
    package("docker-registry", "docker-registry"),
    package("apache2-utils", "htpasswd"),
    package("openssl", "openssl"),
    package("skopeo", "skopeo"),
    package("umoci", "umoci"),
    package("runc", "runc"),
    package("podman", "podman"),
    package("buildah", "buildah"),
    package("docker.io", "dockerd"),
];

/// `cargo xtask packages [--install]`.
pub(crate) fn run(args: &mut Args) -> Outcome {
    let install = args.switch("--install");
    args.words()?;
    let all: Vec<Package> = [BUILD, BASES, TESTS, PEERS].concat();
    if install {
        return ensure_installed(&all);
    }
    let missing = missing(&all);
    if missing.is_empty() {
        println!("every package is there");
    } else {
        println!("missing: {}", missing.join(" "));
    }
    Ok(())
}

/// Whether this process may install packages and mount things.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Installs what is missing as root; says what to type otherwise.
pub(crate) fn ensure_installed(packages: &[Package]) -> Outcome {
    let names = missing(packages);
    if names.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install --no-install-recommends {}", names.join(" "));
    ensure(is_root(), || format!("these packages are missing; as root: {line}"))?;
    ensure(find("apt-get").is_some(), || format!("no apt-get here; missing: {names:?}"))?;
    println!("==> {line}");
    let apt = || Cmd::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").words("-q -y");
    let install = || apt().words("install --no-install-recommends").args(&names);
    // The package lists may be absent or old; only then are they fetched.
    if install().output().is_err() {
        apt().arg("update").output()?;
        install().output()?;
    }
    match missing(packages) {
        still if still.is_empty() => Ok(()),
        still => fail(format!("installed, but its program is not to be found: {still:?}")),
    }
}

/// As `ensure_installed`, for what a command can do without: says so loudly and goes on.
pub(crate) fn install_or_say(packages: &[Package]) {
    if let Err(failure) = ensure_installed(packages) {
        eprintln!("warning: {failure}; what needs them is skipped or fails");
    }
}

fn missing(packages: &[Package]) -> Vec<&'static str> {
    let mut names: Vec<_> =
        packages.iter().filter(|p| find(p.program).is_none()).map(|p| p.name).collect();
    names.sort_unstable();
    names.dedup();
    names
}
