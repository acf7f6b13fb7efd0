//! Warnings of a Dockerfile: collected from wherever they are found, filtered once.

use rbuild_parser::ast::Dockerfile;
use rbuild_parser::ignore_file::Patterns;
use rbuild_parser::lint::Filter;
use rbuild_parser::lint::rules::COPY_IGNORED_FILE;
use rbuild_plan::Graph;
use rbuild_plan::op::{CopySource, Op};
use rbuild_types::Diagnostic;

use crate::BuildRequest;

/// The build argument that stands in for `# check=`.
const SETTINGS: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Ignore rules that leave out everything there is.
const EVERYTHING: [&str; 3] = ["*", "**", "**/*"];

/// The warnings that count.
#[derive(Debug)]
pub(crate) struct Lint {
    filter: Filter,
    found: Vec<Diagnostic>,
}

impl Lint {
    /// Reads the settings. Those that cannot be read are an error.
    pub(crate) fn new(dockerfile: &Dockerfile, request: &BuildRequest) -> Result<Self, Diagnostic> {
        let given = request.options.build_args.get(SETTINGS).map(String::as_str);
        let (filter, found) = Filter::new(dockerfile, given)?;
        Ok(Self { filter, found })
    }

    /// What there is to say about the settings themselves.
    pub(crate) fn settled(&self) -> &[Diagnostic] {
        &self.found
    }

    /// Takes those warnings that count, and gives them back.
    pub(crate) fn add(&mut self, warnings: Vec<Diagnostic>) -> &[Diagnostic] {
        let before = self.found.len();
        let counting = warnings.into_iter().filter(|warning| self.filter.allows(warning));
        self.found.extend(counting);
        &self.found[before..]
    }

    /// All of them in the order of the file, each once.
    pub(crate) fn into_found(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(Diagnostic::span);
        self.found.dedup();
        self.found
    }

    /// The error that they are where the settings say so.
    pub(crate) fn violation(&self) -> Option<Diagnostic> {
        let names = self.filter.violations(&self.found);
        let first = self.found.iter().find(|one| Some(&one.code) == names.first())?;
        let message = format!("lint violation found for rules: {}", names.join(", "));
        let error = Diagnostic::error("lint-violation", first.span().unwrap_or_default(), message);
        Some(error.help("the settings of checks say error=true"))
    }
}

/// Copies of what the ignore file leaves out of the context.
///
/// Where the ignore file has exceptions nothing is said, as in BuildKit: a directory that is left
/// out may still hold files that are not.
pub(crate) fn ignored_copies(source: &str, graph: &Graph, ignore: &Patterns) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if ignore.is_empty() || ignore.has_exceptions() {
        return found;
    }
    for (_, vertex) in graph.vertices() {
        let (Op::Copy(copy), Some(span)) = (&vertex.op, vertex.span) else { continue };
        let text = span.text(source);
        let verb = match text.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("ADD")) {
            true => "Add",
            false => "Copy",
        };
        for from in &copy.sources {
            // Named contexts have ignore files of their own.
            let CopySource::Context { context: None, path } = from else { continue };
            let path = path.replace("/./", "/");
            let path = path.trim_start_matches('/');
            let (is_ignored, shown) = match path {
                "" => (leaves_out_everything(ignore), "."),
                path => (ignore.matches(path).excluded, path),
            };
            if is_ignored {
                let message = format!(
                    "Attempting to {verb} file {shown:?} that is excluded by .dockerignore"
                );
                found.push(COPY_IGNORED_FILE.warning(span, message));
            }
        }
    }
    found
}

fn leaves_out_everything(ignore: &Patterns) -> bool {
    let rules = (0..).map_while(|index| ignore.rule(index));
    rules.into_iter().any(|rule| EVERYTHING.contains(&rule.text))
}
