//! Arguments of `rbuild network` and `port`.

use clap::{Args, Subcommand};

/// Networks of containers.
#[derive(Debug, Args)]
pub struct NetworkArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: NetworkCommand,
}

/// What to do with networks.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make a network
    Create(CreateArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show everything about networks as JSON
    Inspect(InspectArgs),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Remove networks that no container uses
    Prune(PruneArgs),
    /// Connect a container to a network
    Connect(ConnectArgs),
    /// Disconnect a container from a network
    Disconnect(DisconnectArgs),
}

/// Connect a container to a network.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// Name by which others find it there, besides its own; may be repeated
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// Address that it is to have
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<std::net::IpAddr>,
    /// Name or id
    #[arg(value_name = "NETWORK")]
    pub network: String,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// Disconnect a container from a network.
#[derive(Debug, Args)]
pub struct DisconnectArgs {
    /// That the container or its connection is missing is no error
    #[arg(short, long)]
    pub force: bool,
    /// Name or id
    #[arg(value_name = "NETWORK")]
    pub network: String,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// Make a network.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its addresses, such as 10.1.0.0/16
    #[arg(long, value_name = "SUBNET")]
    pub subnet: Option<String>,
    /// The host's address on it
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Option<std::net::IpAddr>,
    /// Label; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub label: Vec<String>,
    /// `bridge` is all there is
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge", hide = true)]
    pub driver: String,
}

/// List networks.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Whole ids
    #[arg(long)]
    pub no_trunc: bool,
    /// `json`, or text with fields such as {{.Name}}
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["quiet", "json"])]
    pub format: Option<String>,
    /// One JSON array
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
}

/// Show everything about networks as JSON.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Names or ids
    #[arg(value_name = "NETWORK", required = true)]
    pub networks: Vec<String>,
    /// Text with fields such as {{.Id}}
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Remove networks.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Names or ids
    #[arg(value_name = "NETWORK", required = true)]
    pub networks: Vec<String>,
    /// A missing one is no error
    #[arg(short, long)]
    pub force: bool,
}

/// Remove networks that no container uses.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

/// Show where a container's ports are to be reached.
#[derive(Debug, Args)]
pub struct PortArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Only this port of the container: PORT[/udp]
    #[arg(value_name = "PORT")]
    pub port: Option<String>,
}
