//! `COPY` and `ADD`.

use rbuild_parser::ast::{self, Instruction, InstructionKind, Text};
use rbuild_types::{Diagnostic, Span};

use super::from::Root;
use super::stage::{Inputs, Layer, StageLowering};
use super::{Stop, path};
use crate::op::{Copy, CopySource, Op, Unpack};
use crate::remote::{self, Remote};
use crate::url::without_passwords;

/// Highest mode: nine permission bits, setuid, setgid, sticky.
const MAX_MODE: u32 = 0o7777;

impl StageLowering<'_, '_> {
    /// Lowers `COPY` and `ADD`.
    pub(super) fn copy(&mut self, instruction: &Instruction, copy: &ast::Copy) -> Result<(), Stop> {
        let is_add = matches!(instruction.kind, InstructionKind::Add(_));
        let flags = &copy.flags;
        let mut words = Vec::new();
        let mut remotes = Vec::new();
        for source in &copy.sources {
            let word = self.expand(source)?;
            let remote = remote::parse(&word)
                .map_err(|message| Diagnostic::error("remote", self.place(source.span), message))?;
            if let Some(remote) = remote.as_ref().filter(|_| !is_add) {
                let kind = if matches!(remote, Remote::Git(_)) { "git ref" } else { "URL" };
                let message = format!("source can't be a {kind} for COPY");
                let span = self.place(source.span);
                return Err(Diagnostic::error("copy-remote", span, message).help("use ADD").into());
            }
            remotes.push(remote);
            words.push(word);
        }
        let checksum = self.checksum(flags, &remotes)?;
        let root = self.source_root(flags.from.as_ref())?;
        let destination = self.expand(&copy.destination)?;
        let chown = self.expand_flag(flags.chown.as_ref())?;
        let chmod = self.expand_flag(flags.chmod.as_ref())?;
        if let (Some(mode), Some(flag)) = (&chmod, &flags.chmod) {
            check_mode(mode, self.place(flag.span))?;
        }
        let parents = flags.parents.as_ref().is_some_and(|flag| flag.value);
        let link = flags.link.as_ref().is_some_and(|flag| flag.value);
        let mut inputs = if link { Inputs::default() } else { self.inputs() };
        let mut sources = Vec::new();
        for ((word, remote), text) in words.iter().zip(&remotes).zip(&copy.sources) {
            sources.push(match remote {
                None => {
                    let word = self.with_slashes(word.clone(), text.span)?;
                    source(&root, source_path(&word, parents), &mut inputs)
                }
                Some(remote) => {
                    let span = self.place(text.span);
                    let keep_git_dir = flags.keep_git_dir.as_ref().map(|flag| flag.value);
                    let checksum = checksum.as_deref();
                    let fetched = remote::source(remote, &remote::Flags { checksum, keep_git_dir })
                        .map_err(|message| Diagnostic::error("remote", span, message))?;
                    let (index, plan) = (self.index, &mut *self.plan);
                    let vertex = plan.add_source(fetched.source, &fetched.name, span, index);
                    CopySource::Input { input: inputs.number(vertex), path: fetched.path }
                }
            });
        }
        sources.extend(self.inline_files(&copy.heredocs)?);
        let text = created_by(
            if is_add { "ADD" } else { "COPY" },
            parents,
            chown.as_deref(),
            chmod.as_deref(),
            &words,
            &copy.heredocs,
            &destination,
        );
        self.charge(words.iter().map(String::len).sum())?;
        let destination = self.with_slashes(destination, copy.destination.span)?;
        let chown = chown.map(|owner| if link { numbered_root(&owner) } else { owner });
        let named_owner = chown.as_deref().is_some_and(has_name);
        let accounts = self.state.root.filter(|_| link && named_owner);
        let op = Op::Copy(Copy {
            has_root: inputs.has_root,
            sources,
            destination: path::join(&self.state.directory(), &destination),
            into_directory: path::names_directory(&destination),
            chown,
            chmod,
            exclude: flags.exclude.iter().map(|pattern| pattern.value.clone()).collect(),
            unpack: match flags.unpack.as_ref().map(|flag| flag.value) {
                Some(true) if is_add => Unpack::All,
                None if is_add => Unpack::Local,
                _ => Unpack::None,
            },
            link,
            accounts: accounts.map(|root| inputs.number(root)),
            parents,
            created: self.plan.source_date_epoch,
            latest: self.latest(false),
        });
        self.change_root(instruction, op, inputs);
        Ok(self.history(text, Layer::Filled)?)
    }

    /// `--checksum`, of the one remote source that it needs.
    fn checksum(
        &mut self,
        flags: &ast::CopyFlags,
        remotes: &[Option<Remote>],
    ) -> Result<Option<String>, Diagnostic> {
        let Some(checksum) = self.expand_flag(flags.checksum.as_ref())? else { return Ok(None) };
        let message = match remotes {
            [Some(_)] => return Ok(Some(checksum)),
            [] | [None] => "checksum requires HTTP(S) or Git sources",
            _ => "checksum can't be specified for multiple sources",
        };
        let span = flags.checksum.as_ref().map(|flag| self.place(flag.span)).unwrap_or_default();
        Err(Diagnostic::error("checksum", span, message))
    }

    /// An empty flag counts as none.
    fn expand_flag(&mut self, flag: Option<&Text>) -> Result<Option<String>, Diagnostic> {
        let Some(flag) = flag else { return Ok(None) };
        Ok(Some(self.expand(flag)?).filter(|value| !value.is_empty()))
    }

    fn source_root(&mut self, from: Option<&Text>) -> Result<Root, Stop> {
        let Some(from) = from else { return Ok(Root::Context(None)) };
        let span = self.place(from.span);
        if from.value.contains('$') {
            let message = "variable expansion is not supported for --from, define a new stage \
                           with FROM using ARG from global scope as a workaround";
            return Err(Diagnostic::error("from-variable", span, message).into());
        }
        self.plan.root_of(&from.value, self.index, span, "copy")
    }

    fn inline_files(&mut self, heredocs: &[ast::Heredoc]) -> Result<Vec<CopySource>, Diagnostic> {
        let mut files = Vec::new();
        for heredoc in heredocs {
            let mut content = heredoc.content();
            if heredoc.expand {
                let origin = self.origin;
                let place = |span| origin.place(span);
                let body = Text::new(content, heredoc.body.span);
                let expanded = self.state.variables.expand_heredoc(&body, &place)?;
                self.warn_undefined(heredoc.body.span, &expanded.unset);
                content = expanded.text;
            }
            self.charge(content.len())?;
            files.push(CopySource::Inline { name: heredoc.name.clone(), content });
        }
        Ok(files)
    }
}

fn source(root: &Root, path: String, inputs: &mut Inputs) -> CopySource {
    match root {
        Root::Context(context) => CopySource::Context { context: context.clone(), path },
        Root::Vertex(vertex) => CopySource::Input { input: inputs.number(*vertex), path },
        Root::Empty => CopySource::Empty { path },
    }
}

/// An owner with the number in the place of `root`, which need not be looked up to be known.
fn numbered_root(owner: &str) -> String {
    let parts = owner.split(':').map(|part| if part == "root" { "0" } else { part });
    parts.collect::<Vec<_>>().join(":")
}

/// Whether an owner takes a look at users and groups: numbers stand for themselves.
fn has_name(owner: &str) -> bool {
    owner.split(':').any(|part| !part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Absolute and cleaned. With `--parents` the first `/./` stays where something is before it.
fn source_path(word: &str, parents: bool) -> String {
    match word.split_once("/./").filter(|_| parents) {
        Some((before, kept)) => match (path::clean(before), path::clean(kept)) {
            (before, kept) if before == "/" => kept,
            (before, kept) => format!("{before}/.{kept}"),
        },
        None => path::clean(word),
    }
}

/// The history text: `--from`, `--link` and `--exclude` are not shown.
fn created_by(
    keyword: &str,
    parents: bool,
    chown: Option<&str>,
    chmod: Option<&str>,
    sources: &[String],
    heredocs: &[ast::Heredoc],
    destination: &str,
) -> String {
    let mut text = keyword.to_owned();
    if parents {
        text.push_str(" --parents");
    }
    for (flag, value) in [("chown", chown), ("chmod", chmod)] {
        if let Some(value) = value {
            text.push_str(&format!(" --{flag}={value}"));
        }
    }
    for source in sources {
        text.push_str(&format!(" {}", without_passwords(source)));
    }
    for heredoc in heredocs {
        text.push_str(&format!(" <<{}", heredoc.name));
    }
    text.push_str(&format!(" {destination} # buildkit"));
    text
}

fn check_mode(mode: &str, span: Span) -> Result<(), Diagnostic> {
    let octal = u32::from_str_radix(mode, 8).is_ok_and(|mode| mode <= MAX_MODE);
    let digits = mode.bytes().all(|byte| byte.is_ascii_digit());
    if octal && digits || !digits && is_symbolic(mode) {
        return Ok(());
    }
    let message = format!(
        "invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777"
    );
    Err(Diagnostic::error("invalid-chmod", span, message)
        .help("octal such as 0644, or symbolic such as u=rwX,go=rX"))
}

/// chmod(1): clauses `[ugoa]*([-+=]([rwxXst]*|[ugo]))+` with commas between.
fn is_symbolic(mode: &str) -> bool {
    mode.split(',').all(|clause| {
        let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let mut parts = actions.split(['-', '+', '=']);
        let starts_with_operator = parts.next() == Some("") && !actions.is_empty();
        starts_with_operator
            && parts.all(|permissions| {
                matches!(permissions, "u" | "g" | "o")
                    || permissions.chars().all(|letter| "rwxXst".contains(letter))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        let fits = |mode: &str| check_mode(mode, Span::default()).is_ok();
        for good in ["0", "644", "07777", "u=rwX,go=rX", "+x", "g=u", "a+X", "u+s,g-w+x", "="] {
            assert!(fits(good), "{good}");
        }
        for bad in ["64a", "10000", "99x", "888", "-1", "u", "rwx", "u+q", ",", "u=rw,,g=r"] {
            assert!(!fits(bad), "{bad}");
        }
    }

    #[test]
    fn owners_with_names() {
        assert_eq!(numbered_root("root:root"), "0:0");
        assert_eq!(numbered_root("1:root"), "1:0");
        assert_eq!(numbered_root("rooty:x"), "rooty:x");
        for named in ["app", "app:", ":app", "1:app", "app:1", "1x"] {
            assert!(has_name(named), "{named}");
        }
        for numbers in ["0", "1000:1000", "7:", ":7"] {
            assert!(!has_name(numbers), "{numbers}");
        }
    }

    #[test]
    fn pivots_are_kept_for_parents_only() {
        assert_eq!(source_path("./x/./y/*.txt", true), "/x/./y/*.txt");
        assert_eq!(source_path("./x/./y/./z", true), "/x/./y/z");
        assert_eq!(source_path("./x", true), "/x");
        assert_eq!(source_path("././x", true), "/x");
        assert_eq!(source_path("a/./b", false), "/a/b");
        assert_eq!(source_path("../../x", false), "/x");
        assert_eq!(source_path("", false), "/");
    }
}
