//! Arguments of `login` and `logout`.

use clap::Args;

/// Log in to a registry.
#[derive(Args)]
pub struct LoginArgs {
    /// host[:port] of the registry; Docker Hub without it. With a path, as in quay.io/team, the
    /// login is for the repositories below that
    #[arg(value_name = "SERVER", default_value = "docker.io", hide_default_value = true)]
    pub server: String,
    /// User name; asked for without it
    #[arg(short, long, value_name = "USER")]
    pub username: Option<String>,
    /// Password, for all to see who can list processes; asked for without it
    #[arg(short, long, value_name = "PASSWORD")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "password")]
    pub password_stdin: bool,
}

impl std::fmt::Debug for LoginArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginArgs").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Log out from a registry.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// As it was given to `login`; Docker Hub without it
    #[arg(value_name = "SERVER", default_value = "docker.io", hide_default_value = true)]
    pub server: String,
}
