//! `rbuild network`.

use std::io::IsTerminal as _;

use rbuild::{
    BuildError, DEFAULT_NETWORK, Engine, Membership, NetworkOptions, NetworkRecord, Place, State,
};
use serde_json::{Map, Value, json};

use crate::args::network::{
    ConnectArgs, CreateArgs, DisconnectArgs, InspectArgs, LsArgs, NetworkArgs, NetworkCommand,
    PruneArgs, RmArgs,
};
use crate::args::volume;
use crate::commands::inspect::print_documents;
use crate::commands::ps::milliseconds;
use crate::commands::{Context, each, prune};
use crate::failure::Failure;
use crate::listing::{List, Listing};
use crate::template::Template;
use crate::{exit_code, human, output, report};

/// Titles of the fields that a row has.
const TITLES: [(&str, &str); 6] = [
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Subnet", "SUBNET"),
    ("CreatedAt", "CREATED AT"),
];

/// Does what the second word says.
pub fn run(args: &NetworkArgs, context: &Context<'_>) -> Result<i32, Failure> {
    match &args.command {
        NetworkCommand::Create(args) => create(args, context),
        NetworkCommand::Ls(args) => ls(args, context),
        NetworkCommand::Inspect(args) => inspect(args, context),
        NetworkCommand::Rm(args) => rm(args, context),
        NetworkCommand::Prune(args) => prune_unused(args, context),
        NetworkCommand::Connect(args) => connect(args, context),
        NetworkCommand::Disconnect(args) => disconnect(args, context),
    }
}

fn connect(args: &ConnectArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let membership =
        Membership { network: args.network.clone(), aliases: args.alias.clone(), address: args.ip };
    context.engine()?.container(&args.container)?.connect(&membership)?;
    Ok(exit_code::SUCCESS)
}

fn disconnect(args: &DisconnectArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let container = context.engine()?.container(&args.container);
    match container.and_then(|mut container| container.disconnect(&args.network)) {
        Err(BuildError::NoSuchContainer { .. } | BuildError::Conflict { .. }) if args.force => {}
        disconnected => disconnected?,
    }
    Ok(exit_code::SUCCESS)
}

fn create(args: &CreateArgs, context: &Context<'_>) -> Result<i32, Failure> {
    if args.driver != "bridge" {
        return Err(Failure::usage_hint(
            format!("--driver {} is not supported yet", args.driver),
            "there is bridge",
        ));
    }
    let options = NetworkOptions {
        name: args.name.clone(),
        subnet: args.subnet.clone(),
        gateway: args.gateway,
        labels: volume::labels(&[], &args.label)?,
    };
    output::line(&context.engine()?.create_network(options)?.id)?;
    Ok(exit_code::SUCCESS)
}

fn ls(args: &LsArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let listing = Listing::parse(args.format.as_deref())?;
    let engine = context.engine()?;
    let records = engine.networks()?;
    let short = |id: &str| if args.no_trunc { id.to_owned() } else { id[..12].to_owned() };
    let row = |id: String, name: &str, driver: &str, subnet: &str, created: String| {
        json!({
            "ID": id, "Name": name, "Driver": driver, "Scope": "local", "Subnet": subnet,
            "CreatedAt": created,
        })
    };
    let rows: Vec<Value> = records
        .iter()
        .map(|record| {
            let created = human::timestamp(milliseconds(record.created));
            row(short(&record.id), &record.name, "bridge", &record.subnet, created)
        })
        .collect();
    let shown = ["ID", "Name", "Driver", "Subnet"];
    let list = List { titles: &TITLES, rows, key: "ID", shown: &shown };
    list.print(listing, args.json, args.quiet)?;
    Ok(exit_code::SUCCESS)
}

fn inspect(args: &InspectArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let engine = context.engine()?;
    let (mut documents, mut code) = (Vec::new(), exit_code::SUCCESS);
    for name in &args.networks {
        match engine.network(name) {
            Ok(record) => documents.push(document(&record, &engine)?),
            Err(error) => code = report::failure(&error.into()),
        }
    }
    print_documents(template, documents)?;
    Ok(code)
}

/// What Docker's `network inspect` shows, as far as it is known here.
fn document(record: &NetworkRecord, engine: &Engine) -> Result<Value, Failure> {
    let mut containers = Map::new();
    for (container, state) in engine.containers()? {
        if let Some(place) = place(&state, &record.name) {
            let address = format!("{}/{}", place.address, place.prefix);
            let inside = json!({
                "Name": container.name,
                "MacAddress": place.hardware_address,
                "IPv4Address": address,
            });
            containers.insert(container.id, inside);
        }
    }
    Ok(json!({
        "Name": record.name,
        "Id": record.id,
        "Created": human::rfc3339(milliseconds(record.created)),
        "Scope": "local",
        "Driver": "bridge",
        "IPAM": { "Config": [{ "Subnet": record.subnet, "Gateway": record.gateway }] },
        "Containers": containers,
        "Options": { "com.docker.network.bridge.name": record.bridge },
        "Labels": record.labels,
    }))
}

fn place<'a>(state: &'a State, network: &str) -> Option<&'a Place> {
    state.connected.networks.iter().find(|place| place.network == network)
}

fn rm(args: &RmArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let engine = context.engine()?;
    each(&args.networks, |name| match engine.remove_network(name) {
        Ok(_) => output::line(name),
        Err(BuildError::NoSuchNetwork { .. }) if args.force => Ok(()),
        Err(error) => Err(error.into()),
    })
}

fn prune_unused(args: &PruneArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let what = "all networks that no container uses";
    if !args.force && std::io::stdin().is_terminal() && !prune::is_meant(what)? {
        return Ok(exit_code::FAILURE);
    }
    let engine = context.engine()?;
    // A container that does not run wants its networks when it is started again.
    let mut used: Vec<String> = Vec::new();
    for (container, _) in engine.containers()? {
        let connection = container.connection.into_iter();
        used.extend(connection.flat_map(|it| it.networks).map(|it| it.network));
    }
    let mut code = exit_code::SUCCESS;
    for record in engine.networks()? {
        let is_used = used.iter().any(|name| *name == record.name || record.id.starts_with(name));
        if is_used || record.name == DEFAULT_NETWORK {
            continue;
        }
        match engine.remove_network(&record.name) {
            Ok(_) => output::line(&record.name)?,
            // A build is connected, or a container that was made since; or somebody else removed it.
            Err(BuildError::Conflict { .. } | BuildError::NoSuchNetwork { .. }) => {}
            Err(error) => code = report::failure(&error.into()),
        }
    }
    Ok(code)
}
