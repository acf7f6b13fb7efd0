//! `RUN --device` and `run --device`: devices of the machine, as files of the Container Device
//! Interface describe them.
//!
//! Before anything runs, [`CdiDevices::settle`] finds out what each step asks for and whether it
//! may have it. What a device is in numbers and files is looked up when its step runs
//! ([`node`]), so a cached step needs no device.

mod document;
pub(crate) mod node;
mod registry;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rbuild_plan::op::Device;
use rbuild_plan::{AskedDevice, Entitlement};
use rbuild_solver::{DeviceEdits, Devices, StepError};
use rbuild_types::Diagnostic;

use self::registry::Registry;

/// The devices of one build.
#[derive(Debug, Default)]
pub(crate) struct CdiDevices {
    registry: Registry,
    /// What each text asks for, in qualified names; nothing where a step goes without.
    found: BTreeMap<String, Vec<String>>,
}

impl CdiDevices {
    /// Looks up all that a plan asks for. With it come warnings of what steps go without.
    ///
    /// # Errors
    ///
    /// What is asked for and is required but not there, is not allowed, or is of a kind that is
    /// not given.
    pub(crate) fn settle(
        asked: &[AskedDevice],
        directories: &[PathBuf],
        allow: &BTreeSet<Entitlement>,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let (mut warnings, mut errors) = (Vec::new(), Vec::new());
        if asked.is_empty() {
            return Ok((Self::default(), warnings));
        }
        let registry = Registry::read(directories);
        let mut granted = BTreeSet::new();
        for entitlement in allow {
            if let Entitlement::Device(Some(name)) = entitlement {
                granted.extend(registry.find(name));
            }
        }
        let all = allow.contains(&Entitlement::Device(None));
        let mut found = BTreeMap::new();
        for AskedDevice { device: Device { name, required }, span } in asked {
            let names = registry.find(name);
            if names.is_empty() {
                let (message, help) =
                    (format!("there is no device {name}"), registry.nothing_found(name));
                match required {
                    true => {
                        errors.push(Diagnostic::error("unknown-device", *span, message).help(help))
                    }
                    false => {
                        let message = format!("{message}: the step runs without it");
                        warnings
                            .push(Diagnostic::warning("unknown-device", *span, message).help(help));
                    }
                }
            }
            for device in &names {
                if !all && !granted.contains(device) && !registry.is_free(device) {
                    let needed = Entitlement::Device(Some((*device).to_owned()));
                    errors.push(needed.refused(*span));
                }
            }
            for (path, edits) in registry.edits(names.iter().copied()) {
                if let Some(problem) = edits.unsupported() {
                    let message = format!("device {name} cannot be given: {problem}");
                    let help = format!("it is described in {}", path.display());
                    errors.push(Diagnostic::error("unsupported-device", *span, message).help(help));
                }
            }
            found.insert(name.clone(), names.into_iter().map(str::to_owned).collect());
        }
        match errors.is_empty() {
            true => Ok((Self { registry, found }, warnings)),
            false => Err(errors),
        }
    }
}

impl Devices for CdiDevices {
    fn edits(&self, devices: &[Device]) -> Result<DeviceEdits, StepError> {
        let mut names = Vec::new();
        for name in devices.iter().filter_map(|device| self.found.get(&device.name)).flatten() {
            if !names.contains(&name.as_str()) {
                names.push(name.as_str());
            }
        }
        let mut all = DeviceEdits::default();
        for (path, edits) in self.registry.edits(names) {
            node::add(edits, &mut all).map_err(|problem| {
                StepError::Missing(format!("{problem}, as {} asks", path.display()))
            })?;
        }
        Ok(all)
    }
}
