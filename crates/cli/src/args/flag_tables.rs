//! The flags of Docker's commands that are not here, one table a command. What a command honours
//! is declared with its arguments.

use super::other_flags::Takes::{MaybeValue, Switch, Value};
use super::other_flags::What::{NoMeaning, NotYet, Only};
use super::other_flags::{Flag, Table, flag, short};

/// `build`, also those of the builder before BuildKit.
#[derive(Debug, Clone, Default)]
pub struct OfBuild;

impl Table for OfBuild {
    const FLAGS: &'static [Flag] = &[
        flag("builder", Value, NoMeaning),
        flag("compress", Switch, NoMeaning),
        short('D', "debug", Switch, NoMeaning),
        flag("detach", Switch, NoMeaning),
        flag("disable-content-trust", Switch, NoMeaning),
        flag("force-rm", Switch, NoMeaning),
        flag("invoke", Value, NotYet),
        flag("isolation", Value, NoMeaning),
        flag("policy", Value, NotYet),
        flag("print", Value, NotYet),
        flag("resource", Value, NotYet),
        flag("rm", Switch, NoMeaning),
        flag("security-opt", Value, NotYet),
        flag("server-config", Value, NoMeaning),
        flag("stream", Switch, NotYet),
    ];
}

/// `run`.
#[derive(Debug, Clone, Default)]
pub struct OfRun;

impl Table for OfRun {
    const FLAGS: &'static [Flag] = &[
        flag("annotation", Value, NotYet),
        short('a', "attach", Value, NotYet),
        flag("blkio-weight", Value, NotYet),
        flag("blkio-weight-device", Value, NotYet),
        flag("cgroupns", Value, Only(&["private"])),
        flag("cpu-count", Value, NotYet),
        flag("cpu-percent", Value, NotYet),
        flag("cpu-rt-period", Value, NotYet),
        flag("cpu-rt-runtime", Value, NotYet),
        flag("device-cgroup-rule", Value, NotYet),
        flag("device-read-bps", Value, NotYet),
        flag("device-read-iops", Value, NotYet),
        flag("device-write-bps", Value, NotYet),
        flag("device-write-iops", Value, NotYet),
        flag("disable-content-trust", Switch, NoMeaning),
        flag("env-host", Switch, NotYet),
        flag("io-maxbandwidth", Value, NotYet),
        flag("io-maxiops", Value, NotYet),
        flag("ip6", Value, NotYet),
        flag("isolation", Value, Only(&["default"])),
        flag("kernel-memory", Value, NotYet),
        flag("link", Value, NotYet),
        flag("link-local-ip", Value, NotYet),
        flag("mac-address", Value, NotYet),
        flag("memory-reservation", Value, NotYet),
        flag("memory-swappiness", Value, NotYet),
        flag("oom-kill-disable", Switch, NotYet),
        flag("pid", Value, Only(&["private"])),
        flag("runtime", Value, NotYet),
        flag("sig-proxy", MaybeValue, Only(&super::switch::TRUE)),
        flag("storage-opt", Value, NotYet),
        flag("use-api-socket", Switch, NotYet),
        flag("userns", Value, Only(&["host"])),
        flag("volume-driver", Value, NotYet),
        flag("volumes-from", Value, NotYet),
    ];
}

/// `update`.
#[derive(Debug, Clone, Default)]
pub struct OfUpdate;

impl Table for OfUpdate {
    const FLAGS: &'static [Flag] = &[
        flag("blkio-weight", Value, NotYet),
        flag("cpu-rt-period", Value, NotYet),
        flag("cpu-rt-runtime", Value, NotYet),
        flag("kernel-memory", Value, NotYet),
        flag("memory-reservation", Value, NotYet),
    ];
}

/// `images`.
#[derive(Debug, Clone, Default)]
pub struct OfImages;

impl Table for OfImages {
    const FLAGS: &'static [Flag] = &[flag("tree", Switch, NotYet)];
}

/// `rmi`.
#[derive(Debug, Clone, Default)]
pub struct OfRmi;

impl Table for OfRmi {
    const FLAGS: &'static [Flag] = &[
        // Images have no parents that could be removed with them.
        flag("no-prune", Switch, NoMeaning),
        flag("platform", Value, NotYet),
    ];
}

/// `inspect`.
#[derive(Debug, Clone, Default)]
pub struct OfInspect;

impl Table for OfInspect {
    const FLAGS: &'static [Flag] = &[
        // The size of a container; that of an image is always there.
        short('s', "size", Switch, NoMeaning),
    ];
}

/// `du`, for `docker system df` and `docker buildx du`.
#[derive(Debug, Clone, Default)]
pub struct OfDu;

impl Table for OfDu {
    const FLAGS: &'static [Flag] = &[
        flag("builder", Value, NoMeaning),
        short('D', "debug", Switch, NoMeaning),
        flag("timeout", Value, NoMeaning),
    ];
}

/// `prune`, for `docker builder prune` and `docker buildx prune`.
#[derive(Debug, Clone, Default)]
pub struct OfPrune;

impl Table for OfPrune {
    const FLAGS: &'static [Flag] = &[
        flag("builder", Value, NoMeaning),
        short('D', "debug", Switch, NoMeaning),
        flag("timeout", Value, NoMeaning),
        flag("volumes", Switch, NotYet),
    ];
}

#[cfg(test)]
mod tests {
    use crate::args::{Args, Command, parse};
    use crate::environment::Environment;
    use crate::failure::Failure;

    /// What the command says of its arguments.
    fn said(line: &str) -> String {
        let line = line.split(' ').map(Into::into).collect();
        let Args { command, .. } = match parse(line) {
            Ok(args) => args,
            Err(Failure::Clap { error, .. }) => return error.to_string(),
            Err(other) => panic!("{other:?}"),
        };
        let environment = Environment::default();
        let settled = match command {
            Command::Build(args) => args.request(&environment).map(drop),
            Command::Run(args) => args.new.options(&environment).map(drop),
            Command::Images(args) => args.other.settle(),
            Command::Rmi(args) => args.other.settle(),
            Command::Inspect(args) => args.other.settle(),
            Command::Du(args) => args.other.settle(),
            Command::Prune(args) => args.other.settle(),
            _ => Ok(()),
        };
        match settled {
            Ok(()) => "good".to_owned(),
            Err(Failure::Usage { message, .. }) => message,
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_that_are_not_here_are_named() {
        for (line, flag) in [
            ("run -a stdout x", "attach"),
            ("run --ipc container:a x", "ipc=container:a"),
            ("run --pid host x", "pid=host"),
            ("run --link a x", "link"),
            ("run --memory-reservation 1g x", "memory-reservation"),
            ("run --blkio-weight 9 x", "blkio-weight"),
            ("run --oom-kill-disable x", "oom-kill-disable"),
            ("run --device-read-bps a:1 x", "device-read-bps"),
            ("run --sig-proxy=false x", "sig-proxy=false"),
            ("run --userns=auto x", "userns=auto"),
            ("build --stream .", "stream"),
            ("images --tree", "tree"),
            ("rmi --platform a x", "platform"),
            ("prune --volumes", "volumes"),
        ] {
            assert_eq!(said(&format!("rbuild {line}")), format!("--{flag} is not supported yet"));
        }
    }

    #[test]
    fn what_changes_nothing_is_accepted() {
        for line in [
            "run --init=false --restart=no --sig-proxy=1 --ipc private --userns host x",
            "run --privileged=false -d=false -P=false x",
            "build --push=false --rm=false --force-rm=true --load=true .",
            "rmi --no-prune x",
            "inspect -s x",
            "prune --builder a",
        ] {
            assert_eq!(said(&format!("rbuild {line}")), "good", "{line}");
        }
    }
}

/// `push`, also podman's.
#[derive(Debug, Clone, Default)]
pub struct OfPush;

impl Table for OfPush {
    const FLAGS: &'static [Flag] = &[
        flag("disable-content-trust", Switch, NoMeaning),
        flag("encrypt-layer", Value, NotYet),
        flag("encryption-key", Value, NotYet),
        short('f', "format", Value, NotYet),
        flag("remove-signatures", Switch, NoMeaning),
        flag("sign-by", Value, NotYet),
        flag("sign-by-sigstore", Value, NotYet),
    ];
}

/// `pull`, also podman's.
#[derive(Debug, Clone, Default)]
pub struct OfPull;

impl Table for OfPull {
    const FLAGS: &'static [Flag] = &[
        flag("arch", Value, NotYet),
        flag("decryption-key", Value, NotYet),
        flag("disable-content-trust", Switch, NoMeaning),
        flag("os", Value, NotYet),
        flag("variant", Value, NotYet),
    ];
}

/// `exec`.
#[derive(Debug, Clone, Default)]
pub struct OfExec;

impl Table for OfExec {
    const FLAGS: &'static [Flag] = &[flag("detach-keys", Value, NotYet)];
}

/// `save`, also podman's.
#[derive(Debug, Clone, Default)]
pub struct OfSave;

impl Table for OfSave {
    const FLAGS: &'static [Flag] = &[
        flag("compress", Switch, NotYet),
        flag("signature-policy", Value, NotYet),
        flag("uncompressed", Switch, NotYet),
    ];
}

/// `load`, also podman's.
#[derive(Debug, Clone, Default)]
pub struct OfLoad;

impl Table for OfLoad {
    const FLAGS: &'static [Flag] = &[flag("signature-policy", Value, NotYet)];
}

/// `volume create`.
#[derive(Debug, Clone, Default)]
pub struct OfVolumeCreate;

impl Table for OfVolumeCreate {
    const FLAGS: &'static [Flag] = &[
        // Options of the driver, such as what it mounts from elsewhere: `run -v` does.
        short('o', "opt", Value, NotYet),
    ];
}
