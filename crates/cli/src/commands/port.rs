//! `rbuild port`.

use crate::args::network::PortArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, output};

/// Prints where ports of a container are to be reached on the host.
pub fn run(args: &PortArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let container = context.engine()?.container(&args.container)?;
    let ports = container.state()?.connected.ports;
    let Some(wanted) = &args.port else {
        for port in ports {
            let (number, protocol) = (port.container_port, port.protocol);
            output::line(&format!("{number}/{protocol} -> {}", port.host))?;
        }
        return Ok(exit_code::SUCCESS);
    };
    let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let is = |port: &&rbuild::OpenPort| {
        port.container_port.to_string() == number && port.protocol == protocol
    };
    let found: Vec<_> = ports.iter().filter(is).collect();
    if found.is_empty() {
        let name = &args.container;
        return Err(Failure::usage_hint(
            format!("port {number}/{protocol} of container {name} is not published"),
            format!("`rbuild port {name}` shows those that are"),
        ));
    }
    for port in found {
        output::line(&port.host.to_string())?;
    }
    Ok(exit_code::SUCCESS)
}
