//! Variables: the build environment of a stage, global arguments, and the names that the
//! language defines by itself.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};

use rbuild_parser::ast::{Dockerfile, InstructionKind, Text};
use rbuild_parser::expand::{self, Environment, ExpandError, Expanded};
use rbuild_types::{Diagnostic, Platform, Span};

use crate::options::Options;

/// Longest value of one variable, in bytes; Linux gives no process one above 128 KiB.
pub(super) const MAX_VALUE: usize = 1 << 20;
/// Most bytes that the variables of one text may put in: `ENV a=$a$a` doubles at each line.
const MAX_EXPANSION: usize = 16 << 20;

/// Named values in the order in which they were first set.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables {
    entries: Vec<(String, String)>,
    positions: HashMap<String, usize>,
    /// Bytes of all names and values.
    size: usize,
}

impl Variables {
    /// Sets a variable; one that exists keeps its place.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.positions.get(name) {
            Some(&at) => {
                self.size = self.size - self.entries[at].1.len() + value.len();
                self.entries[at].1 = value.to_owned();
            }
            None => {
                self.size += name.len() + value.len();
                self.positions.insert(name.to_owned(), self.entries.len());
                self.entries.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.positions.get(name).map(|&at| self.entries[at].1.as_str())
    }

    /// `NAME=value` in order.
    pub(super) fn to_list(&self) -> Vec<String> {
        self.entries.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// The names in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// Bytes of all names and values.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Expands one word; `place` says where errors point.
    pub(super) fn expand(
        &self,
        text: &Text,
        escape: char,
        place: &dyn Fn(Span) -> Span,
    ) -> Result<Expanded, Diagnostic> {
        let metered = Metered::new(self);
        let expanded = expand::expand_word(&text.value, escape, &metered);
        metered.check(text, place)?;
        expanded.map_err(|error| wrong(text, &error, place))
    }

    /// Expands a text into words.
    pub(super) fn expand_words(
        &self,
        text: &Text,
        escape: char,
        place: &dyn Fn(Span) -> Span,
    ) -> Result<(Vec<String>, Vec<String>), Diagnostic> {
        let metered = Metered::new(self);
        let expanded = expand::expand_words(&text.value, escape, &metered);
        metered.check(text, place)?;
        expanded.map_err(|error| wrong(text, &error, place))
    }

    /// Expands the body of a here-document.
    pub(super) fn expand_heredoc(
        &self,
        text: &Text,
        place: &dyn Fn(Span) -> Span,
    ) -> Result<Expanded, Diagnostic> {
        let metered = Metered::new(self);
        let expanded = expand::expand_heredoc(&text.value, &metered);
        metered.check(text, place)?;
        expanded.map_err(|error| wrong(text, &error, place))
    }

    /// Puts in the variables that are set and leaves all else as it is: for names of steps,
    /// where nothing may fail. The variables that hold `secrets` show as stars.
    pub(super) fn display(&self, text: &str, secrets: &[&str]) -> String {
        let mut shown = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let after = &rest[at + 1..];
            let braced = after.strip_prefix('{');
            let name = braced.unwrap_or(after);
            let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            let end = name.find(|letter| !is_letter(letter)).unwrap_or(name.len());
            let closed = braced.is_none() || name[end..].starts_with('}');
            let escaped = rest[..at].ends_with('\\');
            let value = match secrets.contains(&&name[..end]) {
                true => Some("****"),
                false => self.get(&name[..end]),
            };
            let value = value.filter(|_| closed && !escaped);
            shown.push_str(&rest[..at]);
            match value.filter(|value| shown.len() + value.len() < MAX_NAME) {
                Some(value) => {
                    shown.push_str(value);
                    rest = &name[end + usize::from(braced.is_some())..];
                }
                None => {
                    shown.push('$');
                    rest = after;
                }
            }
        }
        shown.push_str(rest);
        shown
    }
}

/// Longest name of a step that variables may make.
const MAX_NAME: usize = 64 << 10;

/// Counts what an expansion takes.
struct Metered<'a> {
    variables: &'a Variables,
    left: Cell<Option<usize>>,
}

impl<'a> Metered<'a> {
    fn new(variables: &'a Variables) -> Self {
        Self { variables, left: Cell::new(Some(MAX_EXPANSION)) }
    }

    fn check(&self, text: &Text, place: &dyn Fn(Span) -> Span) -> Result<(), Diagnostic> {
        match self.left.get() {
            Some(_) => Ok(()),
            None => {
                let message = format!("expands to more than {MAX_EXPANSION} bytes");
                Err(Diagnostic::error("too-large", place(text.span), message))
            }
        }
    }
}

impl Environment for Metered<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name)?;
        let left = self.left.get().and_then(|left| left.checked_sub(value.len()));
        self.left.set(left);
        Some(if left.is_some() { value } else { "" })
    }
}

/// The names that a text asks for when it is expanded, set or not.
pub(super) fn names_in(text: &str, escape: char, variables: &Variables) -> BTreeSet<String> {
    let asked = Asked { variables, names: RefCell::default() };
    // What cannot be expanded is told of where its value is needed.
    let _ = expand::expand_word(text, escape, &asked);
    asked.names.into_inner()
}

/// Variables that remember what they were asked for.
struct Asked<'a> {
    variables: &'a Variables,
    names: RefCell<BTreeSet<String>>,
}

impl Environment for Asked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.names.borrow_mut().insert(name.to_owned());
        self.variables.get(name)
    }
}

fn wrong(text: &Text, error: &ExpandError, place: &dyn Fn(Span) -> Span) -> Diagnostic {
    let shown: String = text.value.chars().take(200).collect();
    let message = format!("failed to process {shown:?}: {}", error.message);
    // The offset fits the source only when the text stands there on one line.
    let inside =
        text.span.end - text.span.start == text.value.len() && error.at <= text.value.len();
    let start = if inside { text.span.start + error.at } else { text.span.start };
    let span = if place(text.span) == text.span {
        Span::new(start.min(text.span.end), text.span.end)
    } else {
        place(text.span)
    };
    Diagnostic::error("expansion", span, message)
}

/// What `FROM` sees, and what `ARG` imports: `ARG`s before the first `FROM`, platforms, target.
#[derive(Default)]
pub(super) struct Globals {
    pub(super) variables: Variables,
    /// Global arguments that have no value, in order.
    pub(super) unset: Vec<String>,
    /// The same for look-ups.
    declared: HashSet<String>,
}

impl Globals {
    pub(super) fn new(
        dockerfile: &Dockerfile,
        options: &Options,
        platform: &Platform,
        target: usize,
    ) -> Result<Self, Diagnostic> {
        let mut globals =
            Self { variables: Variables::default(), unset: Vec::new(), declared: HashSet::new() };
        let stage = dockerfile.stages[target].name.as_ref();
        let stage = stage.map_or("default".to_owned(), |name| name.value.to_lowercase());
        let of_platforms = platform_args("TARGET", platform)
            .into_iter()
            .chain(platform_args("BUILD", &options.build_platform))
            .chain([("TARGETSTAGE".to_owned(), stage)]);
        for (name, value) in of_platforms {
            let value = options.build_args.get(&name).unwrap_or(&value);
            globals.variables.set(&name, value);
        }
        let args = dockerfile.global_args.iter().filter_map(|one| match &one.kind {
            InstructionKind::Arg { args } => Some(args),
            _ => None,
        });
        let escape = dockerfile.directives.escape;
        for arg in args.flatten() {
            let name = globals.expand(&arg.name, escape)?.text;
            let value = match (options.build_args.get(&name), &arg.default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(globals.expand(default, escape)?.text),
                (None, None) => None,
            };
            match value {
                Some(value) if value.len() > MAX_VALUE => {
                    return Err(too_long(&name, arg.name.span));
                }
                Some(value) => globals.variables.set(&name, &value),
                None if globals.declared.insert(name.clone()) => globals.unset.push(name),
                None => {}
            }
        }
        Ok(globals)
    }

    /// Whether there is a global argument of that name without a value.
    pub(super) fn is_unset(&self, name: &str) -> bool {
        self.declared.contains(name)
    }

    /// Expands a text outside of stages.
    pub(super) fn expand(&self, text: &Text, escape: char) -> Result<Expanded, Diagnostic> {
        self.variables.expand(text, escape, &|span| span)
    }
}

/// The refusal of a value above [`MAX_VALUE`].
pub(super) fn too_long(name: &str, span: Span) -> Diagnostic {
    let message = format!("the value of {name} is longer than {MAX_VALUE} bytes");
    Diagnostic::error("too-large", span, message)
}

fn platform_args(prefix: &str, platform: &Platform) -> Vec<(String, String)> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    [
        ("PLATFORM", platform.to_string()),
        ("OS", platform.os.clone()),
        ("OSVERSION", text(&platform.os_version)),
        ("ARCH", platform.architecture.clone()),
        ("VARIANT", text(&platform.variant)),
    ]
    .into_iter()
    .map(|(name, value)| (format!("{prefix}{name}"), value))
    .collect()
}

const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// The proxy variables of a step in both spellings, without those that `variables` sets anyway.
pub(super) fn proxy_env(options: &Options, variables: &Variables) -> Vec<String> {
    let mut env = Vec::new();
    for upper in PROXIES {
        let given = options.build_args.iter().find(|(name, _)| name.eq_ignore_ascii_case(upper));
        let Some((_, value)) = given else { continue };
        for name in [upper.to_owned(), upper.to_ascii_lowercase()] {
            if variables.get(&name).is_none() {
                env.push(format!("{name}={value}"));
            }
        }
    }
    env
}

/// Build arguments that are settings of the build. BuildKit has more; those that would do nothing
/// here are told like any that no `ARG` takes.
const BUILDKIT: [&str; 6] = [
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_SYNTAX",
];

/// Whether a build argument means something without any `ARG`.
pub(super) fn is_known(name: &str) -> bool {
    let platform = name.strip_prefix("TARGET").or_else(|| name.strip_prefix("BUILD"));
    PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
        || BUILDKIT.contains(&name)
        || matches!(name, "SOURCE_DATE_EPOCH" | "TARGETSTAGE")
        || matches!(platform, Some("PLATFORM" | "OS" | "OSVERSION" | "ARCH" | "VARIANT"))
}
