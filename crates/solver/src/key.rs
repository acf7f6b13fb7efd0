//! Keys: what makes two steps the same step.
//!
//! A key is the digest of a document that states, in a fixed form, everything that can change
//! the step's result: the op, the keys of what it works on, and the content digests of the files
//! it reads. The document itself is kept in the step's record, so that a later miss can be
//! explained by comparing documents.
//!
//! A COPY has two keys. The *definition key* is made from the keys of the stages it reads and
//! needs no file; the *content key* from the digests of the selected files. Records live under
//! the content key, and an alias leads from the definition key to it: an unchanged build finds
//! its way without any file of a stage, and a stage that changed without changing the copied
//! files keeps the hit. Proxy variables, secrets and file times are in no key.

use std::collections::BTreeMap;

use rbuild_plan::op::{Copy, CopySource, Op, Run};
use rbuild_types::{Digest, Hasher};
use serde_json::{Value, json};

/// Changes when the meaning of a key changes; old records are then not found.
const VERSION: &str = "rbuild step 1";

/// Where a document has the instruction.
pub(crate) const STEP: &str = "step";

/// A key and the document that it is the digest of.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) digest: Digest,
    pub(crate) inputs: Value,
}

impl Key {
    fn of(inputs: Value) -> Self {
        let mut hasher = Hasher::new();
        hasher.field(VERSION).field(inputs.to_string());
        Self { digest: hasher.finish(), inputs }
    }
}

/// The key of an image's root filesystem: its content, whatever it is called.
pub(crate) fn source(diff_ids: &[Digest]) -> Key {
    Key::of(json!({ "op": "source", "diff_ids": diff_ids }))
}

/// The key of a tree that was fetched: what identifies its content.
pub(crate) fn remote(identity: &Value) -> Key {
    Key::of(json!({ "op": "remote", "identity": identity }))
}

/// The key of a step that reads nothing but its root filesystem (and, for RUN, bind mounts with
/// the given content digests), and of a layer upon a root filesystem.
///
/// `secrets` is what of secrets is to count, by id.
pub(crate) fn step(
    op: &Op,
    root: Option<Digest>,
    content: &[Digest],
    secrets: &BTreeMap<String, String>,
) -> Key {
    let op = match op {
        Op::Run(run) => {
            let mut run = Run { proxy_env: Vec::new(), ..run.clone() };
            run.extra_hosts.iter_mut().for_each(|host| host.address.clear());
            json!({ "op": "run", "run": run })
        }
        other => json!(other),
    };
    let mut document = json!({ STEP: op, "root": root, "content": content });
    if !secrets.is_empty() {
        document["secrets"] = json!(secrets);
    }
    Key::of(document)
}

/// The definition key of a copy, or of a run that binds other stages: `inputs` are the keys of
/// all inputs in order, `context` the digest of what it selects from the context.
pub(crate) fn definition(op: &Op, inputs: &[Digest], context: Option<Digest>) -> Digest {
    Key::of(json!({ "definition": op, "inputs": inputs, "context": context })).digest
}

/// The content key of a copy. Of a linked one that names an owner, `owner` is who that is: all
/// that it takes from what it will be laid upon.
pub(crate) fn copy(
    op: &Copy,
    root: Option<Digest>,
    owner: Option<(u32, u32)>,
    content: Digest,
) -> Key {
    // Where a source comes from does not matter once its content is known, nor how its path is
    // written: the selection holds the names that result.
    let sources: Vec<Value> = op
        .sources
        .iter()
        .map(|source| match source {
            CopySource::Inline { name, content } => json!({ "name": name, "content": content }),
            CopySource::Context { path, .. }
            | CopySource::Input { path, .. }
            | CopySource::Empty { path } => json!({ "path": path }),
        })
        .collect();
    let chown = owner.map(|(uid, gid)| format!("{uid}:{gid}")).or_else(|| op.chown.clone());
    Key::of(json!({
        STEP: {
            "op": "copy",
            "sources": sources,
            "destination": op.destination,
            "into_directory": op.into_directory,
            "chown": chown,
            "chmod": op.chmod,
            "unpack": op.unpack,
            "link": op.link,
            "parents": op.parents,
            "created": op.created,
            "latest": op.latest,
        },
        "root": root,
        "content": content,
    }))
}

#[cfg(test)]
mod tests {
    use rbuild_plan::ExtraHost;
    use rbuild_plan::op::{Device, Mkdir, Network, Security};
    use rbuild_types::Platform;

    use super::*;

    fn run(argv: &[&str]) -> Run {
        Run {
            has_root: true,
            argv: argv.iter().map(ToString::to_string).collect(),
            env: Vec::new(),
            proxy_env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            network: Network::Default,
            scripts: Vec::new(),
            hostname: "box".to_owned(),
            mounts: Vec::new(),
            security: Security::Sandbox,
            extra_hosts: Vec::new(),
            ulimits: Vec::new(),
            shm_size: None,
            platform: None,
            devices: Vec::new(),
            latest: None,
        }
    }

    fn of(op: &Op, root: Option<Digest>) -> Digest {
        step(op, root, &[], &BTreeMap::new()).digest
    }

    #[test]
    fn secrets_count_when_they_are_said_to() {
        let op = Op::Run(run(&["x"]));
        let with = |text: &str| {
            step(&op, None, &[], &BTreeMap::from([("id".to_owned(), text.to_owned())])).digest
        };
        assert_ne!(with("version 1"), of(&op, None));
        assert_ne!(with("version 1"), with("version 2"));
    }

    #[test]
    fn of_extra_hosts_the_names_count() {
        let key = |name: &str, address: &str| {
            let host = ExtraHost { name: name.to_owned(), address: address.to_owned() };
            of(&Op::Run(Run { extra_hosts: vec![host], ..run(&["x"]) }), None)
        };
        assert_eq!(key("a", "1.2.3.4"), key("a", "::1"));
        assert_ne!(key("a", "1.2.3.4"), key("b", "1.2.3.4"));
        assert_ne!(key("a", "1.2.3.4"), of(&Op::Run(run(&["x"])), None));
    }

    #[test]
    fn of_a_named_owner_the_numbers_count() {
        let copy_of = |chown: &str| Copy {
            into_directory: true,
            chown: Some(chown.to_owned()),
            link: true,
            ..Copy::plain(Vec::new(), "/")
        };
        let key = |text: &str, owner| copy(&copy_of(text), None, owner, Digest::of("files")).digest;
        assert_eq!(key("app", Some((1, 2))), key("other", Some((1, 2))));
        assert_eq!(key("app", Some((1, 2))), key("1:2", None));
        assert_ne!(key("app", Some((1, 2))), key("app", Some((1, 3))));
    }

    #[test]
    fn neighbouring_words_do_not_run_into_each_other() {
        let key = |argv: &[&str]| of(&Op::Run(run(argv)), None);
        assert_ne!(key(&["a b", "c"]), key(&["a", "b c"]));
        assert_eq!(key(&["a"]), key(&["a"]));
    }

    #[test]
    fn proxies_are_in_no_key_and_everything_else_is() {
        let plain = run(&["x"]);
        let device = |required| Device { name: "a/b".to_owned(), required };
        let key = |run: &Run, root| of(&Op::Run(run.clone()), root);
        let proxied = Run { proxy_env: vec!["HTTP_PROXY=p".to_owned()], ..plain.clone() };
        assert_eq!(key(&plain, None), key(&proxied, None));
        for changed in [
            Run { env: vec!["A=1".to_owned()], ..plain.clone() },
            Run { cwd: "/x".to_owned(), ..plain.clone() },
            Run { user: "app".to_owned(), ..plain.clone() },
            Run { network: Network::None, ..plain.clone() },
            Run { hostname: "other".to_owned(), ..plain.clone() },
            Run { security: Security::Insecure, ..plain.clone() },
            Run { ulimits: vec!["nofile=9".parse().unwrap()], ..plain.clone() },
            Run { shm_size: Some(9), ..plain.clone() },
            Run { platform: Some(Platform::new("linux", "arm64")), ..plain.clone() },
            Run { devices: vec![device(false)], ..plain.clone() },
            Run { devices: vec![device(true)], ..plain.clone() },
            Run { latest: Some(7), ..plain.clone() },
        ] {
            assert_ne!(key(&plain, None), key(&changed, None), "{changed:?}");
        }
        assert_ne!(key(&plain, None), key(&plain, Some(Digest::of("root"))));
        let mkdir = Mkdir {
            has_root: false,
            path: "/x".to_owned(),
            user: String::new(),
            created: None,
            latest: None,
        };
        assert_ne!(key(&plain, None), of(&Op::Mkdir(mkdir), None));
    }
}
