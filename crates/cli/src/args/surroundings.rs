//! What a container finds around it, in the words of `docker run`.

use std::collections::BTreeMap;

use clap::Args;
use rbuild::SharedNamespaces;

use crate::failure::Failure;

/// Surroundings of a container besides mounts and networks.
#[derive(Debug, Args)]
pub struct SurroundingArgs {
    /// Host name in the container
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Domain name in the container
    #[arg(long, value_name = "NAME")]
    pub domainname: Option<String>,
    /// Run an init as the first process, which passes signals on and waits for orphans
    #[arg(long)]
    pub init: bool,
    /// Setting of the kernel in its own namespaces, such as net.core.somaxconn=1024; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub sysctl: Vec<String>,
    /// Shared memory and queues: private, or the host's with host
    #[arg(long, value_name = "MODE")]
    pub ipc: Option<String>,
    /// Host name: its own, or the host's with host
    #[arg(long, value_name = "MODE")]
    pub uts: Option<String>,
}

impl SurroundingArgs {
    /// Which namespaces are the host's.
    pub fn shared(&self) -> Result<SharedNamespaces, Failure> {
        let is_host = |flag: &str, mode: &Option<String>| match mode.as_deref() {
            Some("host") => Ok(true),
            // Nobody else can join a shareable one either.
            None | Some("" | "private" | "shareable") => Ok(false),
            Some(mode) => Err(Failure::usage(format!("{flag}={mode} is not supported yet"))),
        };
        Ok(SharedNamespaces {
            ipc: is_host("--ipc", &self.ipc)?,
            uts: is_host("--uts", &self.uts)?,
        })
    }

    /// `--sysctl`.
    pub fn sysctls(&self) -> Result<BTreeMap<String, String>, Failure> {
        let pair = |text: &String| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Failure::usage(format!("--sysctl {text}: the form is NAME=VALUE"))),
        };
        self.sysctl.iter().map(pair).collect()
    }
}
