//! Which stage is which: names, bases, platforms, and what each one needs.

use std::collections::HashMap;

use rbuild_parser::ast::{Dockerfile, Instruction, InstructionKind, Stage, Text};
use rbuild_parser::lint::rules::UNDEFINED_ARG_IN_FROM;
use rbuild_parser::{parse_trigger, suggest};
use rbuild_types::{Diagnostic, Platform, Span};

use super::environment::Globals;
use super::lint;
use crate::named_context::NamedContext;
use crate::options::Options;

/// What a stage is built upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image, as written after expansion.
    Image(String),
}

/// The context that is there in place of a stage.
#[derive(Debug, Clone)]
pub(super) struct Replaced {
    /// Its whole name.
    pub(super) name: String,
    pub(super) context: NamedContext,
}

/// What a `--from` or a mount's `from` names.
pub(super) enum Found {
    /// An earlier stage.
    Stage(usize),
    /// The stage itself or a later one.
    NotYet(usize),
    /// A number that no stage has.
    NoSuchIndex,
    /// None of them: an image.
    Image,
}

/// All stages with their `FROM`s expanded.
#[derive(Default)]
pub(super) struct StageTable {
    stages: Vec<Resolved>,
    /// Lower-cased names; a name may be taken several times.
    by_name: HashMap<String, Vec<usize>>,
}

struct Resolved {
    base: Base,
    platform: Option<Platform>,
    name: String,
    label: String,
    needs: Vec<usize>,
    replaced: Option<Replaced>,
}

impl StageTable {
    /// Resolves every `FROM`, used or not, as BuildKit does. Gives all that is wrong, in order.
    pub(super) fn new(
        dockerfile: &Dockerfile,
        options: &Options,
        target_platform: &Platform,
        globals: &Globals,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut table = Self::default();
        let mut errors = Vec::new();
        let alone = dockerfile.stages.len() == 1;
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            let escape = dockerfile.directives.escape;
            let base = base(stage, escape, globals, &table.by_name, warnings);
            let platform = platform(stage, escape, options, globals, warnings);
            warnings.extend(lint::platform(stage, escape, globals));
            let (base, platform) = match (base, platform) {
                (Ok(base), Ok(platform)) => (base, platform),
                (base, platform) => {
                    errors.extend(base.err().into_iter().chain(platform.err()));
                    (Base::Scratch, None)
                }
            };
            let own_name = stage.name.as_ref().map(|name| name.value.to_lowercase());
            let name = own_name.clone().unwrap_or_else(|| format!("stage-{index}"));
            // The name in front of steps: nothing when there is nothing to tell apart.
            let label =
                if alone && own_name.is_none() { String::new() } else { format!("{name} ") };
            let replaced = own_name.as_deref().and_then(|name| {
                let platform = platform.as_ref().unwrap_or(target_platform);
                let (name, context) = options.contexts.find(name, platform)?;
                Some(Replaced { name: name.to_owned(), context: context.clone() })
            });
            if let Some(name) = own_name {
                table.by_name.entry(name).or_default().push(index);
            }
            let needs = Vec::new();
            table.stages.push(Resolved { base, platform, name, label, needs, replaced });
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        for index in 0..table.stages.len() {
            table.stages[index].needs = table.collect_needs(dockerfile, index);
        }
        Ok(table)
    }

    /// What stage `index` is built upon.
    pub(super) fn base(&self, index: usize) -> &Base {
        &self.stages[index].base
    }

    /// The named context of a stage's own name, which is there instead of all the stage says.
    pub(super) fn replaced(&self, index: usize) -> Option<&Replaced> {
        self.stages[index].replaced.as_ref()
    }

    /// The name of the directory that is there in place of a stage.
    pub(super) fn local(&self, index: usize) -> Option<&str> {
        match self.replaced(index)? {
            Replaced { name, context: NamedContext::Local } => Some(name),
            _ => None,
        }
    }

    /// `FROM --platform`.
    pub(super) fn platform(&self, index: usize) -> Option<&Platform> {
        self.stages[index].platform.as_ref()
    }

    /// Lower-cased name, or `stage-N`.
    pub(super) fn name(&self, index: usize) -> &str {
        &self.stages[index].name
    }

    /// The name with a blank after it as it stands in front of steps, or nothing.
    pub(super) fn label(&self, index: usize) -> &str {
        &self.stages[index].label
    }

    /// The earlier stages that stage `index` is known to need before any image is looked at.
    pub(super) fn needs(&self, index: usize) -> &[usize] {
        &self.stages[index].needs
    }

    /// The names that stages before `index` have.
    pub(super) fn names_before(&self, index: usize) -> impl Iterator<Item = &str> {
        let named = self.by_name.iter().filter(move |(_, stages)| stages[0] < index);
        named.map(|(name, _)| name.as_str())
    }

    /// The first stage of that name, whatever its place.
    pub(super) fn by_name(&self, name: &str) -> Option<usize> {
        Some(self.by_name.get(&name.to_lowercase())?[0])
    }

    /// What `from` names in stage `index`: a number, or a name in any case. Of several earlier
    /// stages of one name it is the nearest.
    pub(super) fn find(&self, from: &str, index: usize) -> Found {
        if let Ok(number) = from.parse::<i64>() {
            return match usize::try_from(number) {
                Ok(number) if number < index => Found::Stage(number),
                Ok(number) if number < self.stages.len() => Found::NotYet(number),
                _ => Found::NoSuchIndex,
            };
        }
        match self.by_name.get(&from.to_lowercase()) {
            Some(stages) => match stages.iter().rev().find(|stage| **stage < index) {
                Some(stage) => Found::Stage(*stage),
                None => Found::NotYet(stages[0]),
            },
            None => Found::Image,
        }
    }

    /// Whether stage `from` uses stage `to` in any way, over however many others and whatever
    /// their order.
    pub(super) fn reaches(&self, dockerfile: &Dockerfile, from: usize, to: usize) -> bool {
        let mut seen = vec![false; self.stages.len()];
        let mut open = vec![from];
        while let Some(stage) = open.pop() {
            if stage == to {
                return true;
            }
            if std::mem::replace(&mut seen[stage], true) {
                continue;
            }
            open.extend(self.stages[stage].needs.iter().copied());
            if self.stages[stage].replaced.is_some() {
                continue;
            }
            for text in dockerfile.stages[stage].instructions.iter().flat_map(sources) {
                match self.find(&text, stage) {
                    Found::Stage(other) | Found::NotYet(other) => open.push(other),
                    Found::NoSuchIndex | Found::Image => {}
                }
            }
        }
        false
    }

    fn collect_needs(&self, dockerfile: &Dockerfile, index: usize) -> Vec<usize> {
        let mut needs = Vec::new();
        if self.replaced(index).is_some() {
            return needs;
        }
        let mut froms: Vec<String> = Vec::new();
        if let Base::Stage(base) = self.stages[index].base {
            needs.push(base);
            let triggers = match self.replaced(base) {
                None => dockerfile.stages[base].instructions.as_slice(),
                Some(_) => &[],
            };
            for instruction in triggers {
                if let InstructionKind::Onbuild { trigger } = &instruction.kind {
                    // A broken trigger is told of when it is fired.
                    if let Ok(instruction) = parse_trigger(&trigger.value) {
                        froms.extend(sources(&instruction));
                    }
                }
            }
        }
        froms.extend(dockerfile.stages[index].instructions.iter().flat_map(sources));
        for from in froms {
            // Of a directory only the files that are named are looked at.
            if let Found::Stage(stage) = self.find(&from, index)
                && self.local(stage).is_none()
            {
                needs.push(stage);
            }
        }
        needs.sort_unstable();
        needs.dedup();
        needs
    }
}

/// The `from`s of one instruction.
fn sources(instruction: &Instruction) -> Vec<String> {
    match &instruction.kind {
        InstructionKind::Copy(copy) => {
            copy.flags.from.iter().map(|from| from.value.clone()).collect()
        }
        InstructionKind::Run(run) => {
            let fields = run.mounts.iter().flat_map(|mount| &mount.fields);
            fields.filter(|(key, _)| key == "from").filter_map(|(_, from)| from.clone()).collect()
        }
        _ => Vec::new(),
    }
}

/// The stage to build.
pub(super) fn target(dockerfile: &Dockerfile, options: &Options) -> Result<usize, Diagnostic> {
    let Some(wanted) = &options.target else { return Ok(dockerfile.stages.len() - 1) };
    let names = || dockerfile.stages.iter().filter_map(|stage| stage.name.as_ref());
    let fits = |stage: &Stage| {
        stage.name.as_ref().is_some_and(|name| name.value.eq_ignore_ascii_case(wanted))
    };
    // Of several stages of one name the last is meant.
    if let Some(index) = dockerfile.stages.iter().rposition(fits) {
        return Ok(index);
    }
    let mut message = format!("target stage {wanted:?} could not be found");
    let lower = wanted.to_lowercase();
    let meant = suggest(&lower, names().map(|name| name.value.as_str()));
    if let Some(name) = meant {
        message.push_str(&format!(" (did you mean {name}?)"));
    }
    let last = &dockerfile.stages[dockerfile.stages.len() - 1];
    let span = names().find(|name| Some(name.value.as_str()) == meant).map(|name| name.span);
    let error = Diagnostic::error("unknown-target", span.unwrap_or(last.span), message);
    let known: Vec<_> = names().map(|name| name.value.as_str()).take(20).collect();
    Err(match known.is_empty() {
        true => error.help("no stage has a name: give one with `FROM ... AS name`"),
        false => error.help(format!("the stages are: {}", known.join(", "))),
    })
}

fn base(
    stage: &Stage,
    escape: char,
    globals: &Globals,
    earlier: &HashMap<String, Vec<usize>>,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Base, Diagnostic> {
    let name = expand(&stage.base, escape, globals, warnings)?;
    if name.is_empty() {
        let message = format!("base name ({}) should not be blank", stage.base.value);
        let error = Diagnostic::error("base-name", stage.base.span, message);
        let unset: Vec<_> = globals.unset.iter().map(String::as_str).take(5).collect();
        return Err(match unset.is_empty() {
            true => error.help("only an `ARG` above the first `FROM` can be used here"),
            false => error.help(format!("no value was given for: {}", unset.join(", "))),
        });
    }
    if name == "scratch" {
        return Ok(Base::Scratch);
    }
    // The expanded text must be the lower-cased name; other cases are an image's.
    Ok(match earlier.get(&name).and_then(|stages| stages.last()) {
        Some(index) => Base::Stage(*index),
        None => Base::Image(name),
    })
}

fn platform(
    stage: &Stage,
    escape: char,
    options: &Options,
    globals: &Globals,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Option<Platform>, Diagnostic> {
    let Some(text) = &stage.platform else { return Ok(None) };
    let expanded = globals.expand(text, escape)?;
    warn_undeclared(&expanded.unset, text.span, globals, warnings);
    let name = expanded.text;
    let near = expanded.unset.iter().find_map(|name| suggest(name, globals.variables.names()));
    let meant = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
    if name.is_empty() {
        let message = format!("empty platform value from expression {}", text.value);
        return Err(Diagnostic::error("platform", text.span, message + &meant));
    }
    if name == "local" {
        return Ok(Some(options.build_platform.clone()));
    }
    name.parse().map(Some).map_err(|error| {
        let message = format!("failed to parse platform {name}: {error}{meant}");
        Diagnostic::error("platform", text.span, message)
    })
}

fn expand(
    text: &Text,
    escape: char,
    globals: &Globals,
    warnings: &mut Vec<Diagnostic>,
) -> Result<String, Diagnostic> {
    let expanded = globals.expand(text, escape)?;
    warn_undeclared(&expanded.unset, text.span, globals, warnings);
    Ok(expanded.text)
}

fn warn_undeclared(
    unset: &[String],
    span: Span,
    globals: &Globals,
    warnings: &mut Vec<Diagnostic>,
) {
    let undeclared = unset.iter().filter(|name| !globals.is_unset(name));
    warnings.extend(undeclared.map(|name| self::undeclared(name, span, globals)));
}

fn undeclared(name: &str, span: Span, globals: &Globals) -> Diagnostic {
    let mut message = format!("FROM argument '{name}' is not declared");
    let declared = globals.unset.iter().map(String::as_str);
    if let Some(meant) = suggest(name, globals.variables.names().chain(declared)) {
        message.push_str(&format!(" (did you mean {meant}?)"));
    }
    UNDEFINED_ARG_IN_FROM.warning(span, message)
}
