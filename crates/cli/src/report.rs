//! Everything that is said about the outcome: errors with their places in the Dockerfile,
//! warnings, and the line after a good build. Errors are printed here and nowhere else, once.

use std::time::Duration;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use rbuild::{
    BuildError, Built, CacheTraffic, Diagnostic, LineIndex, Reference, Severity, Span, StepError,
    StepFailure,
};

use crate::exit_code;
use crate::failure::Failure;
use crate::output::{colours, say, tame, visible};

/// Lines of its own output that a failed step shows.
const LOG_LINES: usize = 20;

/// Lines that are shown of a long instruction.
const INSTRUCTION_LINES: usize = 10;

/// Longer lines of the Dockerfile are cut when there is no terminal to ask.
const COLUMNS: usize = 140;
/// A terminal narrower than this is not believed.
const MIN_COLUMNS: usize = 40;

/// Says what went wrong. The answer is the code to exit with.
pub fn failure(failure: &Failure) -> i32 {
    match failure {
        Failure::Silent(_) => {}
        Failure::Clap { error, .. } => {
            // Help goes to standard output, where a pager can have it.
            let text = error.render();
            match error.use_stderr() {
                true if colours() => say(text.ansi().to_string().trim_end()),
                true => say(text.to_string().trim_end()),
                false => drop(crate::output::data(text.to_string())),
            }
        }
        Failure::Usage { message, hints } => {
            error(message);
            hints.iter().for_each(|text| hint(text));
        }
        Failure::Io { what, source } => error(&format!("cannot {what}: {source}")),
        Failure::Engine(error) => engine(error),
        Failure::WithCode(_, inner) => {
            self::failure(inner);
        }
    }
    exit_code::of_failure(failure)
}

/// One line that names the image, its id and the work that was done.
pub fn built(built: &Built, took: Duration) -> String {
    let mut parts = Vec::new();
    if let Some(image) = &built.image {
        let names: Vec<String> = image.names.iter().map(|name| familiar(name)).collect();
        let named = match names.is_empty() {
            true => "built".to_owned(),
            false => format!("built {}", names.join(", ")),
        };
        parts.push(named);
        parts.push(image.id.to_string());
    } else {
        parts.push("built".to_owned());
    }
    let steps = built.cached + built.executed;
    let noun = if steps == 1 { "step" } else { "steps" };
    let took = crate::human::duration(took);
    parts.push(format!("{steps} {noun}, {} cached, {took}", built.cached));
    parts.join("  ")
}

/// One line about caches elsewhere.
pub fn cache_traffic(traffic: &CacheTraffic) -> String {
    let size = crate::human::bytes;
    let mut parts = Vec::new();
    if traffic.imported > 0 || traffic.fetched_bytes > 0 {
        let noun = if traffic.imported == 1 { "step" } else { "steps" };
        parts.push(format!("{} {noun} from elsewhere", traffic.imported));
        parts.push(format!("{} fetched", size(traffic.fetched_bytes)));
        parts.push(format!("{} not needed", size(traffic.avoided_bytes)));
    }
    parts.push(match traffic.sent_layers {
        0 => "nothing sent".to_owned(),
        1 => format!("1 layer, {} sent", size(traffic.sent_bytes)),
        layers => format!("{layers} layers, {} sent", size(traffic.sent_bytes)),
    });
    let line = format!("cache  {}", parts.join(", "));
    let mounts = [(traffic.fetched_mount_bytes, "fetched"), (traffic.sent_mount_bytes, "sent")];
    let moved = mounts.into_iter().filter(|(bytes, _)| *bytes > 0);
    let moved: Vec<_> = moved.map(|(bytes, how)| format!("{} {how}", size(bytes))).collect();
    match moved.is_empty() {
        true => line,
        false => format!("{line}; cache mounts: {}", moved.join(", ")),
    }
}

/// The command that leads to the last failure.
pub const ENTER_FAILED: &str = "rbuild shell @failed";

/// A name as people type it.
pub fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |name| name.familiar())
}

/// How many diagnostics are drawn in one text. Nobody reads more, and a file may have one in every
/// line.
const DRAWN: usize = 100;

/// Says the warnings of a build. Without the Dockerfile's text their places cannot be shown.
pub fn warnings(name: &str, source_text: Option<&str>, warnings: &[Diagnostic]) {
    for warning in warnings.iter().take(DRAWN) {
        match source_text {
            Some(text) => say(&diagnostic(name, text, warning)),
            None => say(&render(&[Group::with_title(
                Level::WARNING.primary_title(visible(&warning.message)).id(warning.code),
            )])),
        }
    }
    not_drawn(warnings.len(), "warnings");
}

fn not_drawn(count: usize, what: &str) {
    if count > DRAWN {
        hint(&format!("{} more {what} are not shown", count - DRAWN));
    }
}

/// Says the warnings of a build that failed: a line each for those about the Dockerfile, so that
/// the first place that is shown is the error's.
pub fn warnings_before_error(name: &str, source_text: Option<&str>, warnings: &[Diagnostic]) {
    let index = source_text.map(LineIndex::new);
    for warning in warnings {
        let Some((index, span)) = index.as_ref().zip(warning.span()) else {
            self::warnings(name, source_text, std::slice::from_ref(warning));
            continue;
        };
        let title = format!("{} (line {})", visible(&warning.message), index.line(span.start));
        say(&render(&[Group::with_title(Level::WARNING.primary_title(title).id(warning.code))]));
    }
}

/// A line of text from elsewhere, tabs kept.
pub fn one_line(line: &str) -> String {
    let parts: Vec<String> = line.trim_end_matches('\r').split('\t').map(visible).collect();
    parts.join("\t")
}

fn error(message: &str) {
    say(&render(&[Group::with_title(Level::ERROR.primary_title(visible(message)))]));
}

fn hint(text: &str) {
    say(&format!("hint: {text}"));
}

fn engine(error: &BuildError) {
    match error {
        error if exit_code::is_cancelled(error) => {
            say("interrupted: everything that was begun is cleaned up");
        }
        BuildError::Dockerfile { name, source_text, diagnostics } => {
            for one in diagnostics.iter().take(DRAWN) {
                say(&diagnostic(name, source_text, one));
            }
            not_drawn(diagnostics.len(), "errors and warnings");
            if diagnostics.is_empty() {
                self::error(&error.to_string());
            }
        }
        BuildError::Step { name, source_text, failure } => {
            say(&step(name, source_text, failure));
            if failure.kept.is_some() {
                hint(&format!("enter it with: {ENTER_FAILED}"));
            }
        }
        other => self::error(&chain(other)),
    }
}

/// The message of an error and those of its causes that it does not hold already.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let message = next.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = next.source();
    }
    text
}

fn step(name: &str, source_text: &str, failure: &StepFailure) -> String {
    let mut text = String::new();
    let log = log_tail(&failure.log_tail);
    if !log.lines.is_empty() {
        text.push_str(&format!("------\n > {}:\n", visible(&failure.name)));
        if log.cut {
            text.push_str("   …\n");
        }
        for line in &log.lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("------\n");
    }
    let message = match &failure.source {
        own @ StepError::Exit { .. } => own.to_string(),
        other => format!("{}: {}", failure.name, chain(other)),
    };
    let title = Level::ERROR.primary_title(visible(&message));
    let group = match failure.span.and_then(|span| placed(source_text, span)) {
        Some(range) => {
            let whole = AnnotationKind::Visible.span(some_lines(source_text, range.clone()));
            let range = first_word(source_text, range);
            let label = match failure.name.contains("] ONBUILD ") {
                true => "a trigger of ONBUILD failed",
                false => "this step failed",
            };
            let here = AnnotationKind::Primary.span(range).label(label);
            let snippet = Snippet::source(source_text).path(visible(name));
            let group = title.element(snippet.annotation(here).annotation(whole));
            match failure.source.help() {
                Some(help) => group.element(Level::HELP.message(visible(&help))),
                None => group,
            }
        }
        None => Group::with_title(title),
    };
    text.push_str(&render(&[group]));
    text
}

/// The end of a step's output.
struct LogTail {
    lines: Vec<String>,
    /// Whether there was more before it.
    cut: bool,
}

fn log_tail(bytes: &[u8]) -> LogTail {
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(LOG_LINES);
    let shown = |line: &&str| tame(line, colours());
    LogTail { lines: all[from..].iter().map(shown).collect(), cut: from > 0 }
}

/// One diagnostic with its places.
fn diagnostic(name: &str, source_text: &str, diagnostic: &Diagnostic) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut title = level.primary_title(visible(&diagnostic.message)).id(diagnostic.code);
    if let Some(url) = &diagnostic.url {
        title = title.id_url(url.as_str());
    }
    let mut annotations = Vec::new();
    for (index, label) in diagnostic.labels.iter().enumerate() {
        let Some(range) = placed(source_text, label.span) else { continue };
        let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let text = (!label.text.is_empty()).then(|| visible(&label.text));
        annotations.push(kind.span(first_lines(source_text, range)).label(text));
    }
    if annotations.is_empty() {
        let text = render(&[Group::with_title(title)]);
        return match &diagnostic.help {
            Some(help) => format!("{text}\nhint: {}", visible(help)),
            None => text,
        };
    }
    let snippet = Snippet::source(source_text).path(visible(name));
    let mut group = title.element(snippet.annotations(annotations));
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(visible(help)));
    }
    render(&[group])
}

fn render(groups: &[Group<'_>]) -> String {
    let renderer = if colours() { Renderer::styled() } else { Renderer::plain() };
    let columns = match colours() {
        true => usize::from(console::Term::stderr().size().1).max(MIN_COLUMNS),
        false => COLUMNS,
    };
    let text = renderer.decor_style(DecorStyle::Ascii).term_width(columns).render(groups);
    text.lines().map(without_column).collect::<Vec<_>>().join("\n")
}

/// `--> Dockerfile:5:13` as `--> Dockerfile:5`: editors and scripts that read the messages of
/// `docker build` look for file and line, and the caret shows the column.
fn without_column(line: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbered = |text: &str| text.rsplit_once(':').is_some_and(|(_, last)| is_number(last));
    match line.rsplit_once(':') {
        Some((front, column)) if is_origin(line) && is_number(column) && numbered(front) => front,
        _ => line,
    }
}

/// Whether a rendered line is the arrow with the place, and not a line of the source with an arrow
/// in it: only colours and blanks stand before it.
fn is_origin(line: &str) -> bool {
    line.split_once("--> ")
        .is_some_and(|(before, _)| console::strip_ansi_codes(before).trim().is_empty())
}

/// A span as a range that lies in the text and does not cut characters; spans that come from
/// elsewhere must not make the renderer panic.
fn placed(text: &str, span: Span) -> Option<std::ops::Range<usize>> {
    let down = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (down(span.start), down(span.end));
    if text.is_empty() || start > end {
        return None;
    }
    // Without the newline at its end, which would underline the next line.
    let end = start + text[start..end].trim_end().len();
    if start < end {
        return Some(start..end);
    }
    // An empty place is shown as the character there, or the last one of the text.
    let start = if start == text.len() { down(start - 1) } else { start };
    let width = text[start..].chars().next().map_or(0, char::len_utf8);
    Some(start..start + width)
}

/// A long instruction is marked in its first line only: the mark says where, the reader has the
/// rest before him.
fn first_lines(text: &str, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    match text[range.clone()].find('\n') {
        Some(0) | None => range,
        Some(length) => range.start..range.start + length,
    }
}

/// As much of an instruction as is shown when it failed.
fn some_lines(text: &str, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let ends = text[range.clone()].match_indices('\n');
    let end = ends.map(|(at, _)| range.start + at).nth(INSTRUCTION_LINES - 1);
    range.start..end.unwrap_or(range.end)
}

/// The name of an instruction: the line is there to be read, the mark only points to it.
fn first_word(text: &str, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let words = &text[range.clone()];
    let length = words.find(char::is_whitespace).filter(|at| *at > 0).unwrap_or(words.len());
    range.start..range.start + length
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str =
        "FROM alpine:3.20 AS build\nRUN make\n\nFROM scratch\nCOPY --from=biuld /a /b\n";

    fn span_of(text: &str) -> Span {
        let start = SOURCE.find(text).unwrap();
        Span::new(start, start + text.len())
    }

    #[test]
    fn cache_mounts_are_counted_where_there_are_any() {
        let traffic = CacheTraffic::default();
        assert_eq!(cache_traffic(&traffic), "cache  nothing sent");
        let traffic = CacheTraffic { fetched_mount_bytes: 1000, sent_mount_bytes: 20, ..traffic };
        let expected = "cache  nothing sent; cache mounts: 1kB fetched, 20B sent";
        assert_eq!(cache_traffic(&traffic), expected);
    }

    #[test]
    fn a_diagnostic_shows_its_places() {
        let one = Diagnostic::error("unknown-stage", span_of("biuld"), "no stage `biuld`")
            .label(span_of("build"), "a stage with a similar name")
            .help("did you mean `build`?");
        let expected = "\
error[unknown-stage]: no stage `biuld`
 --> Dockerfile:5
  |
1 | FROM alpine:3.20 AS build
  |                     ----- a stage with a similar name
...
5 | COPY --from=biuld /a /b
  |             ^^^^^
  |
  = help: did you mean `build`?";
        assert_eq!(diagnostic("Dockerfile", SOURCE, &one), expected);
    }

    #[test]
    fn a_multi_line_instruction_is_marked_in_its_first_line() {
        let source = "FROM x\nRUN a \\\n  && b\n";
        let one = Diagnostic::error("x", Span::new(7, source.len()), "no");
        let text = diagnostic("Dockerfile", source, &one);
        assert!(text.contains("--> Dockerfile:2\n") && !text.contains("&& b"), "{text}");
    }

    #[test]
    fn of_a_long_instruction_some_lines_are_shown() {
        let source: String = (0..30).map(|n| format!("  && step {n} \\\n")).collect();
        let source = format!("FROM x\nRUN a \\\n{source}  && b\n");
        let range = some_lines(&source, 7..source.len());
        assert!(source[range.clone()].ends_with("&& step 8 \\"), "{range:?}");
        assert_eq!(some_lines(&source, 0..6), 0..6);
    }

    #[test]
    fn only_the_place_loses_its_column() {
        let source = "FROM x\nRUN echo --> a:1:2\n";
        let text =
            diagnostic("Dockerfile", source, &Diagnostic::error("x", Span::new(7, 10), "no"));
        assert!(text.contains("--> Dockerfile:2\n") && text.contains("--> a:1:2\n"), "{text}");
    }

    #[test]
    fn no_span_makes_the_renderer_panic() {
        for source in ["", "é", "FROM x\n", "\n", "a\r\nb", "\u{feff}FROM x"] {
            for start in 0..10 {
                for end in 0..10 {
                    let one = Diagnostic::error("x", Span::new(start, end), "m\x1b[2J");
                    let text = diagnostic("Docker\nfile", source, &one);
                    assert!(!text.contains('\x1b'), "{text}");
                }
            }
        }
        let far = Diagnostic::error("x", Span::new(1 << 40, 1 << 41), "m");
        assert!(diagnostic("Dockerfile", "FROM x", &far).contains("Dockerfile:1"));
    }

    #[test]
    fn the_end_of_the_log_is_shown() {
        let log: String = (0..30).map(|n| format!("line {n}\r\n")).collect();
        let tail = log_tail(log.as_bytes());
        assert!(tail.cut);
        assert_eq!(tail.lines.len(), 20);
        assert_eq!(tail.lines[0], "line 10");
        assert_eq!(log_tail(b"10%\r50%\r100%").lines, ["100%"]);
        assert!(log_tail(b"").lines.is_empty());
    }

    #[test]
    fn causes_are_said_once() {
        let error = BuildError::Io {
            what: "open x".to_owned(),
            source: std::io::Error::other("no such file"),
        };
        assert_eq!(chain(&error), "open x: no such file");
    }
}
