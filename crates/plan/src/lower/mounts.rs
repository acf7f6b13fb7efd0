//! `RUN --mount`: fields are expanded, checked against the type and given their defaults.

use rbuild_parser::ast;
use rbuild_parser::ast::Text;
use rbuild_parser::suggest;
use rbuild_types::{Diagnostic, Span};

use super::from::Root;
use super::stage::{Inputs, StageLowering};
use super::{Stop, path};
use crate::mount::{
    CacheMount, Mount, MountKind, MountRoot, MountSource, SecretMount, Sharing, SshMount,
};
use crate::ram_in_bytes;

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const KEYS: [&str; 19] = [
    "type",
    "target",
    "dst",
    "destination",
    "source",
    "src",
    "from",
    "ro",
    "readonly",
    "rw",
    "readwrite",
    "id",
    "sharing",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
    "required",
];

/// The fields of one mount after expansion. `None` is not given.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    target: Option<String>,
    source: Option<String>,
    from: Option<String>,
    read_only: Option<bool>,
    id: Option<String>,
    sharing: Option<String>,
    size: Option<String>,
    mode: Option<String>,
    uid: Option<String>,
    gid: Option<String>,
    env: Option<String>,
    required: Option<bool>,
}

impl StageLowering<'_, '_> {
    /// Lowers the mounts of one `RUN`, in order.
    pub(super) fn mounts(
        &mut self,
        mounts: &[ast::Mount],
        inputs: &mut Inputs,
    ) -> Result<Vec<Mount>, Stop> {
        let mut lowered: Vec<Mount> = Vec::new();
        let mut agents = 0;
        for mount in mounts {
            let span = self.place(mount.text.span);
            let fields = self.fields(mount, span)?;
            let kind = fields.kind.clone().unwrap_or_else(|| "bind".to_owned());
            check_keys(&fields, &kind, span)?;
            lowered.push(match kind.as_str() {
                "bind" => self.bind(fields, span, inputs)?,
                "cache" => self.cache(fields, span, inputs)?,
                "tmpfs" => Mount {
                    target: Some(self.target(fields.target.as_deref(), span)?),
                    read_only: fields.read_only.unwrap_or(false),
                    kind: MountKind::Tmpfs {
                        size: fields.size.map(|text| size(&text, span)).transpose()?,
                    },
                },
                "secret" => self.secret(fields, span)?,
                "ssh" => {
                    let mount = self.ssh(fields, agents, span)?;
                    agents += 1;
                    mount
                }
                other => return Err(unknown_type(other, span).into()),
            });
        }
        Ok(lowered)
    }

    fn fields(&mut self, mount: &ast::Mount, span: Span) -> Result<Fields, Diagnostic> {
        let mut fields = Fields::default();
        for (key, value) in &mount.fields {
            let written = match value {
                Some(value) => format!("{key}={value}"),
                None => key.clone(),
            };
            let value = match value {
                Some(value) if key == "from" => Some(value.clone()),
                Some(value) => Some(self.expand(&Text::new(value.clone(), mount.text.span))?),
                None => None,
            };
            let flag = || match &value {
                None => Ok(true),
                Some(value) => boolean(value).ok_or_else(|| wrong_value(key, value, span)),
            };
            let text = || {
                value.clone().ok_or_else(|| {
                    let message = format!("invalid field '{written}' must be a key=value pair");
                    Diagnostic::error("mount", span, message)
                })
            };
            // An empty name is no name.
            let name = || Ok::<_, Diagnostic>(Some(text()?).filter(|name| !name.is_empty()));
            match key.as_str() {
                "type" => fields.kind = Some(text()?.to_lowercase()),
                "target" | "dst" | "destination" => fields.target = name()?,
                "source" | "src" => fields.source = name()?,
                "from" => fields.from = name()?,
                "ro" | "readonly" => fields.read_only = Some(flag()?),
                "rw" | "readwrite" => fields.read_only = Some(!flag()?),
                "id" => fields.id = name()?,
                "sharing" => fields.sharing = Some(text()?),
                "size" => fields.size = Some(text()?),
                "mode" => fields.mode = Some(text()?),
                "uid" => fields.uid = Some(text()?),
                "gid" => fields.gid = Some(text()?),
                "env" => fields.env = Some(text()?),
                "required" => fields.required = Some(flag()?),
                _ => {
                    let mut message = format!("unexpected key '{key}' in '{written}'");
                    if let Some(meant) = suggest(key, KEYS) {
                        message.push_str(&format!(" (did you mean {meant}?)"));
                    }
                    return Err(Diagnostic::error("mount", span, message));
                }
            }
        }
        Ok(fields)
    }

    /// Relative to `WORKDIR`, and `WORKDIR` itself when none was given.
    fn target(&self, target: Option<&str>, span: Span) -> Result<String, Diagnostic> {
        let target = path::join(&self.state.directory(), target.unwrap_or(""));
        if target == "/" {
            let message = "invalid mount target \"/\"";
            return Err(Diagnostic::error("mount-target", span, message)
                .help("name a directory with target=, or set a WORKDIR"));
        }
        Ok(target)
    }

    fn root(
        &mut self,
        from: Option<&str>,
        span: Span,
        inputs: &mut Inputs,
    ) -> Result<Option<MountRoot>, Stop> {
        let Some(from) = from else { return Ok(None) };
        // A lone `$` at the end names no variable.
        if from.trim_end_matches('$').contains('$') {
            let message = "'from' doesn't support variable expansion, define alias stage instead";
            return Err(Diagnostic::error("from-variable", span, message).into());
        }
        Ok(Some(match self.plan.root_of(from, self.index, span, "mount")? {
            Root::Vertex(vertex) => MountRoot::Input { input: inputs.number(vertex) },
            Root::Context(context) => MountRoot::Context { context },
            Root::Empty => MountRoot::Empty,
        }))
    }

    fn bind(&mut self, fields: Fields, span: Span, inputs: &mut Inputs) -> Result<Mount, Stop> {
        let target = self.target(fields.target.as_deref(), span)?;
        let root = self.root(fields.from.as_deref(), span, inputs)?;
        let path = path::clean(fields.source.as_deref().unwrap_or("/"));
        let source =
            MountSource { root: root.unwrap_or(MountRoot::Context { context: None }), path };
        let read_only = fields.read_only.unwrap_or(true);
        Ok(Mount { target: Some(target), read_only, kind: MountKind::Bind(source) })
    }

    fn cache(&mut self, fields: Fields, span: Span, inputs: &mut Inputs) -> Result<Mount, Stop> {
        let target = self.target(fields.target.as_deref(), span)?;
        let seed = self.root(fields.from.as_deref(), span, inputs)?;
        let namespace = self.plan.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS");
        // Relative targets are not joined here: BuildKit names the cache by what was written.
        let id = fields.id.unwrap_or_else(|| match fields.target.as_deref().unwrap_or("") {
            absolute if absolute.starts_with('/') => path::clean(absolute),
            relative => path::clean(relative)[1..].to_owned(),
        });
        let sharing = match fields.sharing.as_deref().map(str::to_lowercase).as_deref() {
            None | Some("shared") => Sharing::Shared,
            Some("private") => Sharing::Private,
            Some("locked") => Sharing::Locked,
            Some(other) => {
                let mut message = format!("unsupported sharing value {other:?}");
                if let Some(meant) = suggest(other, ["shared", "private", "locked"]) {
                    message.push_str(&format!(" (did you mean {meant}?)"));
                }
                return Err(Diagnostic::error("mount", span, message).into());
            }
        };
        let cache = CacheMount {
            id: format!("{}/{id}", namespace.map_or("", String::as_str)),
            sharing,
            seed,
            path: path::clean(fields.source.as_deref().unwrap_or("/")),
            mode: octal(fields.mode.as_deref(), 0o755, span)?,
            uid: number("uid", fields.uid.as_deref(), span)?,
            gid: number("gid", fields.gid.as_deref(), span)?,
        };
        let read_only = fields.read_only.unwrap_or(false);
        Ok(Mount { target: Some(target), read_only, kind: MountKind::Cache(cache) })
    }

    fn secret(&mut self, fields: Fields, span: Span) -> Result<Mount, Diagnostic> {
        let name = fields.id.or(fields.source);
        let id = match (name, &fields.target) {
            (Some(id), _) => id,
            (None, Some(target)) => base_name(target),
            (None, None) => {
                let message = "invalid secret mount. one of source, target required";
                return Err(Diagnostic::error("mount", span, message));
            }
        };
        let target = match (&fields.target, &fields.env) {
            (None, Some(_)) => None,
            (Some(target), _) => Some(self.target(Some(target), span)?),
            (None, None) => Some(path::clean(&format!("/run/secrets/{}", base_name(&id)))),
        };
        let secret = SecretMount {
            id,
            env: fields.env,
            required: fields.required.unwrap_or(false),
            mode: octal(fields.mode.as_deref(), 0o400, span)?,
            uid: number("uid", fields.uid.as_deref(), span)?,
            gid: number("gid", fields.gid.as_deref(), span)?,
        };
        Ok(Mount { target, read_only: true, kind: MountKind::Secret(secret) })
    }

    fn ssh(&mut self, fields: Fields, agents: usize, span: Span) -> Result<Mount, Diagnostic> {
        let target = match fields.target.as_deref() {
            Some(target) => self.target(Some(target), span)?,
            None => format!("/run/buildkit/ssh_agent.{agents}"),
        };
        let ssh = SshMount {
            id: fields.id.unwrap_or_else(|| "default".to_owned()),
            export: agents == 0 && self.state.variables.get("SSH_AUTH_SOCK").is_none(),
            required: fields.required.unwrap_or(false),
            mode: octal(fields.mode.as_deref(), 0o600, span)?,
            uid: number("uid", fields.uid.as_deref(), span)?,
            gid: number("gid", fields.gid.as_deref(), span)?,
        };
        Ok(Mount { target: Some(target), read_only: true, kind: MountKind::Ssh(ssh) })
    }
}

/// Refuses fields that the type does not have.
fn check_keys(fields: &Fields, kind: &str, span: Span) -> Result<(), Diagnostic> {
    if !TYPES.contains(&kind) {
        return Err(unknown_type(kind, span));
    }
    let given = [
        ("size", fields.size.is_some(), &["tmpfs"][..]),
        ("required", fields.required.is_some(), &["secret", "ssh"]),
        ("source", fields.source.is_some(), &["bind", "cache", "secret", "tmpfs"]),
    ];
    for (key, is_given, types) in given {
        if is_given && !types.contains(&kind) {
            let message = format!("unexpected key '{key}' for mount type '{kind}'");
            return Err(Diagnostic::error("mount", span, message));
        }
    }
    let owner = [("mode", &fields.mode), ("uid", &fields.uid), ("gid", &fields.gid)];
    for (key, value) in owner {
        if value.is_some() && matches!(kind, "bind" | "tmpfs") {
            let message = format!("{key} not allowed for {kind:?} type mounts");
            return Err(Diagnostic::error("mount", span, message));
        }
    }
    let sharing = fields.sharing.is_some();
    let message = match kind {
        "secret" if fields.from.is_some() => "secret mount should not have a from",
        "secret" if sharing => "secret mount should not define sharing",
        "secret" if fields.source.is_some() && fields.id.is_some() => {
            "both source and id can't be set"
        }
        "cache" => return Ok(()),
        _ if sharing => &format!("invalid cache sharing set for {kind} mount"),
        _ => return Ok(()),
    };
    Err(Diagnostic::error("mount", span, message))
}

fn unknown_type(kind: &str, span: Span) -> Diagnostic {
    let mut message = format!("unsupported mount type {kind:?}");
    if let Some(meant) = suggest(kind, TYPES) {
        message.push_str(&format!(" (did you mean {meant}?)"));
    }
    Diagnostic::error("mount", span, message)
}

fn wrong_value(key: &str, value: &str, span: Span) -> Diagnostic {
    Diagnostic::error("mount", span, format!("invalid value for {key}: {value}"))
}

/// What Go's `strconv.ParseBool` takes.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn octal(text: Option<&str>, default: u32, span: Span) -> Result<u32, Diagnostic> {
    let Some(text) = text else { return Ok(default) };
    let mode = u32::from_str_radix(text, 8).map_err(|_| wrong_number("mode", text, span))?;
    // What is above the permission bits says nothing.
    Ok(mode & 0o7777)
}

fn number(key: &str, text: Option<&str>, span: Span) -> Result<u32, Diagnostic> {
    let Some(text) = text else { return Ok(0) };
    text.parse().map_err(|_| wrong_number(key, text, span))
}

fn wrong_number(key: &str, text: &str, span: Span) -> Diagnostic {
    Diagnostic::error("mount", span, format!("invalid value {text} for {key}"))
}

fn size(text: &str, span: Span) -> Result<u64, Diagnostic> {
    ram_in_bytes(text).ok_or_else(|| wrong_value("size", text, span))
}

fn base_name(path: &str) -> String {
    path::clean(path).rsplit('/').next().unwrap_or("").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets() {
        assert_eq!(base_name("/run/a/"), "a");
        assert_eq!(base_name("x"), "x");
        assert_eq!(base_name("/"), "");
    }
}
