//! What a target takes from outside: noted while its stages are lowered.

use std::collections::{BTreeSet, HashMap, HashSet};

use rbuild_parser::ast::{Arg, Dockerfile, InstructionKind};
use rbuild_types::{Diagnostic, Span};

use super::stage::StageLowering;
use super::stages::Base;
use super::{Lowering, environment, platforms, start};
use crate::image_configs::ImageConfigs;
use crate::mount::{Mount, MountKind};
use crate::options::Options;
use crate::outline::{Outline, OutlineArg, OutlineMount};

/// What one stage takes.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken {
    args: Vec<OutlineArg>,
    /// Names of global arguments that it uses.
    globals: BTreeSet<String>,
    secrets: Vec<OutlineMount>,
    ssh: Vec<OutlineMount>,
    caches: Vec<OutlineMount>,
}

/// The parameters of the target of `dockerfile`, which was parsed from `source`.
pub fn outline(
    source: &str,
    dockerfile: &Dockerfile,
    options: &Options,
    images: &dyn ImageConfigs,
) -> Result<Outline, Vec<Diagnostic>> {
    let mut lowering = start(source, dockerfile, options, images)?;
    lowering.taken = Some(vec![Taken::default(); dockerfile.stages.len()]);
    // One platform stands for all: what a target takes hardly differs between them.
    if let Some(platform) = platforms(options).into_iter().next() {
        lowering.enter(platform)?;
    }
    let target = lowering.target;
    lowering.run(target)?;
    Ok(lowering.outline(target))
}

impl StageLowering<'_, '_> {
    /// Notes an `ARG` and its value. One that only brings in a global one is that one.
    pub(super) fn take_arg(&mut self, arg: &Arg, name: &str, value: Option<&String>) {
        let span = self.here;
        let is_given = self.plan.options.build_args.contains_key(name);
        let is_global =
            arg.default.is_none() && !is_given && self.plan.globals.variables.get(name).is_some();
        let Some(taken) = self.taken() else { return };
        let name = name.to_owned();
        if is_global {
            taken.globals.insert(name);
        } else {
            let (value, description) = (value.cloned(), arg.doc.clone());
            taken.args.push(OutlineArg { name, value, description, span });
        }
    }

    /// Notes what a step has mounted.
    pub(super) fn take_mounts(&mut self, mounts: &[Mount]) {
        let span = self.here;
        let Some(taken) = self.taken() else { return };
        for mount in mounts {
            let (list, id, required) = match &mount.kind {
                MountKind::Secret(secret) => (&mut taken.secrets, &secret.id, secret.required),
                MountKind::Ssh(ssh) => (&mut taken.ssh, &ssh.id, ssh.required),
                // Its name is behind the namespace.
                MountKind::Cache(cache) => (&mut taken.caches, &cache.id, false),
                _ => continue,
            };
            let id = match &mount.kind {
                MountKind::Cache(_) => id.split_once('/').map_or(id.as_str(), |(_, id)| id),
                _ => id,
            };
            list.push(OutlineMount { id: id.to_owned(), required, span });
        }
    }

    fn taken(&mut self) -> Option<&mut Taken> {
        self.plan.taken.as_mut()?.get_mut(self.index)
    }
}

impl Lowering<'_> {
    /// Gathers what the target takes and all stages that it needs; of several by one name the
    /// nearest to the target counts.
    fn outline(&self, target: usize) -> Outline {
        let stage = &self.dockerfile.stages[target];
        let mut outline = Outline {
            name: stage.name.as_ref().map(|name| name.value.clone()),
            description: stage.doc.clone(),
            ..Outline::default()
        };
        let mut seen: [HashSet<&str>; 4] = Default::default();
        let mut used = HashSet::new();
        let globals = self.global_args();
        for index in self.needed(target) {
            let Some(taken) = self.taken.as_ref().and_then(|taken| taken.get(index)) else {
                continue;
            };
            // The last of one name counts, as it does for what comes after it.
            for arg in taken.args.iter().rev() {
                if seen[0].insert(&arg.name) {
                    let global = globals.get(arg.name.as_str()).and_then(|all| all.last());
                    let of_global = || global.and_then(|global| global.arg.doc.clone());
                    let description = arg.description.clone().or_else(of_global);
                    outline.args.push(OutlineArg { description, ..arg.clone() });
                }
            }
            for name in self.use_globals(index, taken, &globals, &mut used) {
                if let Some((name, declared)) = globals.get_key_value(name.as_str())
                    && seen[0].insert(name)
                {
                    outline.args.extend(declared.last().map(|last| self.global(last)));
                }
            }
            let lists = [
                (&taken.secrets, &mut outline.secrets),
                (&taken.ssh, &mut outline.ssh),
                (&taken.caches, &mut outline.caches),
            ];
            for ((from, to), seen) in lists.into_iter().zip(&mut seen[1..]) {
                to.extend(from.iter().filter(|one| seen.insert(&one.id)).cloned());
            }
        }
        outline.args.sort_by_key(|arg| arg.span);
        for list in [&mut outline.secrets, &mut outline.ssh, &mut outline.caches] {
            list.sort_by_key(|one| one.span);
        }
        outline
    }

    /// The target and the stages that it needs, bases before what is copied from.
    fn needed(&self, target: usize) -> Vec<usize> {
        let (mut order, mut open) = (Vec::new(), vec![target]);
        let mut seen = vec![false; self.dockerfile.stages.len()];
        while let Some(index) = open.pop() {
            if std::mem::replace(&mut seen[index], true) {
                continue;
            }
            order.push(index);
            open.extend(self.stages.needs(index).iter().rev());
            if let Base::Stage(base) = self.stages.base(index) {
                open.push(*base);
            }
        }
        order
    }

    /// The declarations of each global argument, in order.
    fn global_args(&self) -> HashMap<&str, Vec<Declared<'_>>> {
        let mut all: HashMap<&str, Vec<Declared<'_>>> = HashMap::new();
        for instruction in &self.dockerfile.global_args {
            let InstructionKind::Arg { args } = &instruction.kind else { continue };
            for arg in args {
                let declared = Declared { arg, span: instruction.span };
                all.entry(&arg.name.value).or_default().push(declared);
            }
        }
        all
    }

    fn global(&self, declared: &Declared<'_>) -> OutlineArg {
        let name = declared.arg.name.value.clone();
        let value = self.globals.variables.get(&name).map(str::to_owned);
        OutlineArg { name, value, description: declared.arg.doc.clone(), span: declared.span }
    }

    /// The global arguments that a stage uses by itself, in `FROM`, or through the defaults of
    /// others, without those that were `used` before.
    fn use_globals(
        &self,
        index: usize,
        taken: &Taken,
        globals: &HashMap<&str, Vec<Declared<'_>>>,
        used: &mut HashSet<String>,
    ) -> Vec<String> {
        let names = |text: &str| {
            let escape = self.dockerfile.directives.escape;
            environment::names_in(text, escape, &self.globals.variables)
        };
        let stage = &self.dockerfile.stages[index];
        let mut open: Vec<String> = taken.globals.iter().cloned().collect();
        for text in std::iter::once(&stage.base).chain(&stage.platform) {
            open.extend(names(&text.value));
        }
        let mut found = Vec::new();
        while let Some(name) = open.pop() {
            if !used.insert(name.clone()) {
                continue;
            }
            // A default that was not needed leads nowhere.
            if !self.options.build_args.contains_key(&name) {
                let declared = globals.get(name.as_str()).into_iter().flatten();
                let defaults = declared.filter_map(|declared| declared.arg.default.as_ref());
                open.extend(defaults.flat_map(|default| names(&default.value)));
            }
            found.push(name);
        }
        found
    }
}

/// One declaration of a global argument.
struct Declared<'a> {
    arg: &'a Arg,
    /// The instruction.
    span: Span,
}
