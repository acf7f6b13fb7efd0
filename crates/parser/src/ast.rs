//! The typed syntax of a Dockerfile.
//!
//! Every value is as written: variables are not expanded, names not resolved. Spans are byte
//! offsets into the text given to [`crate::parse`]; the span of a value that was joined from
//! several lines runs from its first to its last byte in the source.

use rbuild_types::Span;
use serde::Serialize;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// Puts the two together.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// A word or text in which variables have yet to be expanded.
pub type Text = Spanned<String>;

/// A whole Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dockerfile {
    /// The parser directives at the top.
    pub directives: Directives,
    /// The `ARG` instructions before the first `FROM`.
    pub global_args: Vec<Instruction>,
    /// The stages in order.
    pub stages: Vec<Stage>,
}

/// `# syntax=`, `# escape=` and `# check=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Directives {
    /// The frontend image asked for.
    pub syntax: Option<Text>,
    /// The escape character: a backslash unless the directive says a backtick.
    pub escape: char,
    /// The lint settings.
    pub check: Option<Text>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None }
    }
}

/// One `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// The whole `FROM` instruction.
    pub span: Span,
    /// The logical line of `FROM`, continuation lines joined.
    pub text: String,
    /// The base: a stage name, a named context, an image reference or `scratch`.
    pub base: Text,
    /// `--platform=`.
    pub platform: Option<Text>,
    /// The name after `AS`, lower-cased.
    pub name: Option<Text>,
    /// The keyword as written, such as `from`.
    pub keyword: Text,
    /// The comment lines directly above, without `#` and outer blanks.
    pub comments: Vec<String>,
    /// The comment directly above that begins with the stage's name.
    pub doc: Option<String>,
    /// The instructions in order.
    pub instructions: Vec<Instruction>,
}

/// One instruction other than `FROM`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instruction {
    /// From the keyword to the last byte, heredoc bodies included.
    pub span: Span,
    /// The keyword as written, such as `run`.
    pub keyword: Text,
    /// The logical line, continuation lines joined and comments between them dropped, heredoc
    /// bodies left out.
    pub text: String,
    /// The comment lines directly above, without `#` and outer blanks.
    pub comments: Vec<String>,
    /// What it does.
    pub kind: InstructionKind,
}

/// What an instruction does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum InstructionKind {
    /// `ADD`.
    Add(Copy),
    /// `ARG`: several on one line see one another from left to right.
    Arg {
        /// The arguments in order.
        args: Vec<Arg>,
    },
    /// `CMD`.
    Cmd {
        /// The default command.
        command: CommandLine,
    },
    /// `COPY`.
    Copy(Copy),
    /// `ENTRYPOINT`.
    Entrypoint {
        /// The program.
        command: CommandLine,
    },
    /// `ENV`.
    Env {
        /// The variables in order.
        pairs: Vec<KeyValue>,
    },
    /// `EXPOSE`: words split at blanks; each may expand to several.
    Expose {
        /// The words in order.
        ports: Vec<Text>,
    },
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `LABEL`.
    Label {
        /// The labels in order.
        pairs: Vec<KeyValue>,
    },
    /// `MAINTAINER`.
    Maintainer {
        /// The whole argument.
        name: Text,
    },
    /// `ONBUILD`: the instruction to run later, in the text that the image config keeps
    /// (heredoc bodies included).
    Onbuild {
        /// The text without `ONBUILD`.
        trigger: Text,
    },
    /// `RUN`.
    Run(Run),
    /// `SHELL`.
    Shell {
        /// The shell and its first arguments; at least one.
        argv: Vec<Text>,
    },
    /// `STOPSIGNAL`.
    Stopsignal {
        /// Name or number.
        signal: Text,
    },
    /// `USER`.
    User {
        /// `user[:group]`.
        user: Text,
    },
    /// `VOLUME`.
    Volume {
        /// The paths in order; none is empty.
        paths: Vec<Text>,
    },
    /// `WORKDIR`.
    Workdir {
        /// The path.
        path: Text,
    },
}

/// One `ARG`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Arg {
    /// The name.
    pub name: Text,
    /// The default, unexpanded and with its quotes.
    pub default: Option<Text>,
    /// The comment above that begins with the name.
    pub doc: Option<String>,
}

/// One `key=value` of `ENV` or `LABEL`, both unexpanded and with their quotes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyValue {
    /// The key.
    pub key: Text,
    /// The value.
    pub value: Text,
    /// Whether it was written `key value`, without `=`. The value is then the rest of the line,
    /// and quotes in it still count when it is expanded.
    pub legacy: bool,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "form", rename_all = "lowercase")]
pub enum CommandLine {
    /// A JSON array.
    Exec {
        /// The strings of the array; may be empty.
        argv: Vec<String>,
        /// The array.
        span: Span,
    },
    /// A text for the shell of the stage.
    Shell {
        /// The text, continuation lines joined; empty when nothing was written.
        text: String,
        /// The text.
        span: Span,
    },
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    /// The command. With heredocs it is the first line, as written after the flags.
    pub command: CommandLine,
    /// `--mount=…` in order.
    pub mounts: Vec<Mount>,
    /// `--network=`: `default`, `none` or `host`.
    pub network: Option<Text>,
    /// `--security=`: `sandbox` or `insecure`.
    pub security: Option<Text>,
    /// `--device=…` in order.
    pub devices: Vec<Device>,
    /// The documents that follow, in order.
    pub heredocs: Vec<Heredoc>,
}

/// One `--mount`, fields as written; which fields a type allows is checked by the parser, values
/// that hold variables by the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// The whole flag value.
    pub text: Text,
    /// The fields in order: key in lower case, value if there was a `=`.
    pub fields: Vec<(String, Option<String>)>,
}

/// One `--device`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// The whole flag value.
    pub text: Text,
    /// What is asked for, in the words of the Container Device Interface.
    pub name: String,
    /// Whether the step cannot do without.
    pub required: bool,
}

/// `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copy {
    /// Paths, patterns or URLs, in order; unexpanded words.
    pub sources: Vec<Text>,
    /// Files written in the Dockerfile itself, in order.
    pub heredocs: Vec<Heredoc>,
    /// The destination.
    pub destination: Text,
    /// The flags.
    pub flags: CopyFlags,
}

/// The flags of `COPY` and `ADD`. Those of the other one are refused by the parser.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CopyFlags {
    /// `--from=` (COPY).
    pub from: Option<Text>,
    /// `--chown=`.
    pub chown: Option<Text>,
    /// `--chmod=`.
    pub chmod: Option<Text>,
    /// `--link`.
    pub link: Option<Spanned<bool>>,
    /// `--parents` (COPY).
    pub parents: Option<Spanned<bool>>,
    /// `--exclude=…`, in order.
    pub exclude: Vec<Text>,
    /// `--checksum=` (ADD).
    pub checksum: Option<Text>,
    /// `--keep-git-dir` (ADD).
    pub keep_git_dir: Option<Spanned<bool>>,
    /// `--unpack` (ADD).
    pub unpack: Option<Spanned<bool>>,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Heredoc {
    /// The delimiter without quotes; for COPY and ADD also the file's name.
    pub name: String,
    /// The word as written, from the descriptor number on: `3<<-"EOF"`.
    pub word: Text,
    /// Whether variables in the body are expanded: no quote in the delimiter.
    pub expand: bool,
    /// Whether leading tabs were asked to be dropped (`<<-`).
    pub chomp: bool,
    /// The descriptor number, 0 when not written.
    pub descriptor: u32,
    /// The raw body as in the source, last newline included, leading tabs still there.
    pub body: Text,
}

impl Heredoc {
    /// The body with leading tabs dropped where `<<-` asks for it.
    pub fn content(&self) -> String {
        if !self.chomp {
            return self.body.value.clone();
        }
        let lines = self.body.value.split_inclusive('\n');
        lines.map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// `HEALTHCHECK`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Healthcheck {
    /// The command; `None` for `HEALTHCHECK NONE`.
    pub command: Option<CommandLine>,
    /// `--interval=` in nanoseconds; 0 inherits.
    pub interval: i64,
    /// `--timeout=` in nanoseconds; 0 inherits.
    pub timeout: i64,
    /// `--start-period=` in nanoseconds; 0 inherits.
    pub start_period: i64,
    /// `--start-interval=` in nanoseconds; 0 inherits.
    pub start_interval: i64,
    /// `--retries=`; 0 inherits.
    pub retries: i64,
}
