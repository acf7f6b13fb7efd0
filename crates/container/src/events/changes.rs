//! What a change of a container's state tells.

use std::collections::BTreeMap;
use std::path::Path;

use rbuild_sandbox::Exit;

use super::Event;
use crate::state::State;

/// The events that lead from one state to the next; `attributes` is what is said of the container
/// besides.
pub(crate) fn told(
    directory: &Path,
    attributes: &BTreeMap<String, String>,
    before: &State,
    after: &State,
) -> Vec<Event> {
    let mut events = Vec::new();
    let container = |action: &str| Event::of_container(directory, action).or_all(attributes);
    let network = |action: &str, name: &str| {
        let id = directory.file_name().map(|id| id.to_string_lossy().into_owned());
        Event::now("network", action, name)
            .with("name", name)
            .with("type", "bridge")
            .with("container", id.unwrap_or_default())
    };
    let names = |state: &State| -> Vec<String> {
        state.connected.networks.iter().map(|place| place.network.clone()).collect()
    };
    let (left, joined) = (names(before), names(after));
    events.extend(joined.iter().filter(|it| !left.contains(it)).map(|it| network("connect", it)));
    if before.pid.is_none() && after.pid.is_some() {
        events.push(container("start"));
    }
    let runs_on = before.pid.is_some() && after.pid.is_some();
    match (before.paused, after.paused) {
        (false, true) if runs_on => events.push(container("pause")),
        (true, false) if runs_on => events.push(container("unpause")),
        _ => {}
    }
    let health = |state: &State| state.health.as_ref().map(|health| health.status);
    if let Some(status) = health(after)
        && health(before).is_some_and(|before| before != status)
        && before.pid == after.pid
    {
        events.push(container(&format!("health_status: {}", status.name())));
    }
    if before.pid.is_some() && after.pid.is_none() {
        let exit = after.ended.map(|ended| ended.exit);
        if matches!(exit, Some(Exit::OutOfMemory(_))) {
            events.push(container("oom"));
        }
        let code = exit.map_or(0, Exit::code);
        events.push(container("die").with("exitCode", code.to_string()));
    }
    events
        .extend(left.iter().filter(|it| !joined.contains(it)).map(|it| network("disconnect", it)));
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Health, HealthStatus};
    use crate::state::{Ended, Status};

    #[test]
    fn changes_of_state_are_events() {
        let actions = |before: &State, after: &State| {
            let events = told(Path::new("/containers/1"), &BTreeMap::new(), before, after);
            events.into_iter().map(|event| event.action).collect::<Vec<_>>()
        };
        let created = State::default();
        let health = |status| Some(Health { status, ..Health::default() });
        let runs = State {
            status: Status::Running,
            pid: Some(7),
            health: health(HealthStatus::Starting),
            ..State::default()
        };
        assert_eq!(actions(&created, &runs), ["start"]);
        let paused = State { paused: true, ..runs.clone() };
        assert_eq!(actions(&runs, &paused), ["pause"]);
        assert_eq!(actions(&paused, &runs), ["unpause"]);
        let well = State { health: health(HealthStatus::Healthy), ..runs.clone() };
        assert_eq!(actions(&runs, &well), ["health_status: healthy"]);
        let mut over = well.clone();
        over.end(Exit::OutOfMemory(9));
        assert_eq!(actions(&well, &over), ["oom", "die"]);
        let ended = Some(Ended { exit: Exit::Code(1), at: 0 });
        let failed = State { ended, ..State::default() };
        assert_eq!(actions(&created, &failed), Vec::<String>::new());
        assert_eq!(actions(&over, &over), Vec::<String>::new());
    }
}
