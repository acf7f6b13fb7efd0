//! One file of the Container Device Interface: what a vendor says of its devices.
//!
//! The form is that of the specification up to 1.1.0. As there, an unknown field is an error: it
//! could ask for something that the device does not work, or is not safe, without.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document {
    cdi_version: String,
    /// `vendor/class`.
    pub(super) kind: String,
    #[serde(default, deserialize_with = "texts")]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<Described>,
    /// For each process that gets one of the devices, once.
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// One device.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Described {
    pub(super) name: String,
    #[serde(default, deserialize_with = "texts")]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) container_edits: Edits,
}

/// What changes for a process.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Edits {
    #[serde(default)]
    pub(super) env: Vec<String>,
    #[serde(default)]
    pub(super) device_nodes: Vec<Node>,
    #[serde(default)]
    pub(super) mounts: Vec<Mount>,
    #[serde(default)]
    pub(super) additional_gids: Vec<u32>,
    #[serde(default)]
    hooks: Vec<Hook>,
    #[serde(default)]
    net_devices: Vec<serde::de::IgnoredAny>,
    intel_rdt: Option<serde::de::IgnoredAny>,
}

/// A device node.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Node {
    pub(super) path: String,
    /// Where it is on the host, when not at `path`.
    #[serde(default)]
    pub(super) host_path: String,
    /// `c` or `u`, `b`, `p`; empty for that of the host.
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) major: u32,
    #[serde(default)]
    pub(super) minor: u32,
    pub(super) file_mode: Option<u32>,
    /// Of the control group: `r`, `w`, `m`; empty for all.
    #[serde(default)]
    permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// A part of the host's files.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(default)]
    pub(super) options: Vec<String>,
    #[serde(default, rename = "type")]
    kind: String,
}

/// A program of the host that would be run around the process.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Hook {
    hook_name: String,
    path: String,
    #[serde(default, rename = "args")]
    _args: Vec<String>,
    #[serde(default, rename = "env")]
    _env: Vec<String>,
    #[serde(rename = "timeout")]
    _timeout: Option<i64>,
}

/// Options of mounts that change nothing here: a mount never reaches back to the host, and shows
/// what is mounted in it.
const USUAL: [&str; 12] = [
    "bind", "rbind", "rw", "suid", "exec", "nodev", "private", "rprivate", "slave", "rslave",
    "relatime", "noatime",
];

/// Options of mounts that are kept.
const KEPT: [&str; 3] = ["ro", "nosuid", "noexec"];

impl Document {
    /// Reads JSON.
    pub(super) fn from_json(text: &str) -> Result<Self, String> {
        Self::checked(serde_json::from_str(text).map_err(|error| error.to_string())?)
    }

    /// Reads YAML, in which a mode may be written `0660`.
    pub(super) fn from_yaml(text: &str) -> Result<Self, String> {
        let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
        let read = serde_saphyr::from_str_with_options(text, options);
        Self::checked(read.map_err(|error| error.to_string())?)
    }

    fn checked(self) -> Result<Self, String> {
        let version = &self.cdi_version;
        if !version.starts_with("0.") && !version.starts_with("1.") {
            return Err(format!("version {version:?} is not known: there are 0.x and 1.x"));
        }
        let (vendor, class) = self.kind.split_once('/').unwrap_or_default();
        if !is_name(vendor, "_-.") || !is_name(class, "_-.") {
            return Err(format!("kind {:?} is not of the form vendor.com/class", self.kind));
        }
        self.container_edits.check()?;
        let mut names = BTreeSet::new();
        for device in &self.devices {
            if !is_name(&device.name, "_-.:") {
                return Err(format!("device name {:?} has other letters than names", device.name));
            }
            if !names.insert(&device.name) {
                return Err(format!("device {:?} is there twice", device.name));
            }
            device.container_edits.check()?;
        }
        Ok(self)
    }
}

impl Edits {
    /// What makes no sense, whoever reads it.
    fn check(&self) -> Result<(), String> {
        for variable in &self.env {
            if variable.find('=').is_none_or(|at| at == 0) || variable.contains('\0') {
                return Err(format!("environment variable {variable:?} is not NAME=value"));
            }
        }
        for node in &self.device_nodes {
            let path = &node.path;
            is_inside(path)?;
            if !["", "c", "u", "b", "p"].contains(&node.kind.as_str()) {
                return Err(format!("device node {path}: invalid type {:?}", node.kind));
            }
            if node.permissions.chars().any(|letter| !"rwm".contains(letter)) {
                let permissions = &node.permissions;
                return Err(format!("device node {path}: invalid permissions {permissions:?}"));
            }
        }
        self.mounts.iter().try_for_each(|mount| {
            let host = &mount.host_path;
            if !host.starts_with('/') || host.contains('\0') {
                return Err(format!("host path {host:?} is not absolute"));
            }
            is_inside(&mount.container_path)
        })
    }

    /// The first thing that a process would need and is not given here.
    pub(super) fn unsupported(&self) -> Option<String> {
        if let Some(hook) = self.hooks.first() {
            return Some(format!(
                "its {} hook would run {} on the host, and hooks are not run",
                hook.hook_name, hook.path
            ));
        }
        if !self.net_devices.is_empty() {
            return Some("it brings network devices, which are not supported".to_owned());
        }
        if self.intel_rdt.is_some() {
            return Some("it sets Intel RDT, which is not supported".to_owned());
        }
        for node in &self.device_nodes {
            let granted = &node.permissions;
            // Nothing here keeps a process from writing to a node that it may read.
            let both = granted.contains('r') && granted.contains('w');
            if !granted.is_empty() && !both {
                let path = &node.path;
                return Some(format!("permissions {granted:?} of {path} cannot be kept"));
            }
        }
        self.mounts.iter().find_map(|mount| {
            let kind = mount.kind.as_str();
            if !["", "bind", "none"].contains(&kind) {
                return Some(format!("it mounts a file system of type {kind:?}"));
            }
            let mut options = mount.options.iter().map(String::as_str);
            let other = options.find(|option| !USUAL.contains(option) && !KEPT.contains(option));
            other.map(|option| {
                format!("mount option {option:?} of {} is not supported", mount.container_path)
            })
        })
    }
}

/// Letters and digits, some others between them.
fn is_name(text: &str, between: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric();
    text.starts_with(plain)
        && text.ends_with(plain)
        && text.chars().all(|letter| plain(letter) || between.contains(letter))
}

/// Refuses a path that names no place inside.
fn is_inside(path: &str) -> Result<(), String> {
    let parts = path.strip_prefix('/').filter(|rest| !rest.is_empty());
    let fits =
        parts.is_some_and(|rest| rest.split('/').all(|part| !["", ".", ".."].contains(&part)));
    match fits && !path.contains('\0') {
        true => Ok(()),
        false => Err(format!("{path:?} is no absolute path")),
    }
}

/// Values of annotations are texts; YAML reads `true` and `1` as something else.
fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Scalar {
        Text(String),
        Truth(bool),
        Number(i64),
    }
    let read = BTreeMap::<String, Scalar>::deserialize(from)?;
    let text = |value| match value {
        Scalar::Text(text) => text,
        Scalar::Truth(truth) => truth.to_string(),
        Scalar::Number(number) => number.to_string(),
    };
    Ok(read.into_iter().map(|(name, value)| (name, text(value))).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: &str = r#"
cdiVersion: "0.7.0"
kind: vendor.com/net-1
annotations:
  org.mobyproject.buildkit.device.autoallow: true
  number: 7
containerEdits:
  env: [A=1]
devices:
  - name: "0"
    annotations: {org.mobyproject.buildkit.device.class: fast}
    containerEdits:
      deviceNodes:
        - {path: /dev/x, hostPath: /dev/null, type: c, major: 1, minor: 3, fileMode: 0660, permissions: rw}
      mounts:
        - hostPath: /usr/lib/x.so
          containerPath: /usr/lib/x.so
          options: [ro, nosuid, nodev, bind]
      additionalGids: [44]
"#;

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = Document::from_yaml(WHOLE).unwrap();
        assert_eq!(yaml.annotations["org.mobyproject.buildkit.device.autoallow"], "true");
        assert_eq!(yaml.annotations["number"], "7");
        let edits = &yaml.devices[0].container_edits;
        assert_eq!(edits.device_nodes[0].file_mode, Some(0o660));
        assert_eq!((edits.additional_gids[0], edits.unsupported()), (44, None));
        let json = r#"{"cdiVersion":"1.0.0","kind":"v/c","devices":[{"name":"a","containerEdits":
            {"deviceNodes":[{"path":"/dev/x","fileMode":432}]}}]}"#;
        let json = Document::from_json(json).unwrap();
        assert_eq!(json.devices[0].container_edits.device_nodes[0].file_mode, Some(0o660));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (find, put, told) in [
            ("0.7.0", "2.0.0", "version"),
            ("kind: vendor.com/net-1", "kind: vendor.com", "kind"),
            ("kind: vendor.com/net-1", "kind: vendor.com/net-", "kind"),
            ("name: \"0\"", "name: a/b", "device name"),
            ("A=1", "A", "NAME=value"),
            ("/dev/x,", "dev/x,", "absolute"),
            ("/dev/x,", "/dev/../x,", "absolute"),
            ("type: c", "type: z", "type"),
            ("permissions: rw", "permissions: rx", "permissions"),
            ("hostPath: /usr", "hostPath: usr", "absolute"),
            ("additionalGids", "additionalGroups", "additionalGroups"),
            ("devices:", "devicez:", "devicez"),
        ] {
            assert!(WHOLE.contains(find), "{find}");
            let error = Document::from_yaml(&WHOLE.replacen(find, put, 1)).unwrap_err();
            assert!(error.contains(told), "{put}: {error}");
        }
        let twice = format!("{WHOLE}  - {{name: \"0\", containerEdits: {{}}}}\n");
        assert!(Document::from_yaml(&twice).unwrap_err().contains("twice"));
    }

    #[test]
    fn what_is_not_given_is_named() {
        let hook = "hooks: [{hookName: createContainer, path: /bin/x, args: [x], timeout: 3}]";
        for (put, told) in [
            (hook, "createContainer hook would run /bin/x"),
            ("netDevices: [{hostInterfaceName: a, name: b}]", "network"),
            ("intelRdt: {closID: a}", "RDT"),
            ("deviceNodes: [{path: /dev/y, permissions: r}]", "permissions \"r\" of /dev/y"),
            ("mounts: [{hostPath: /a, containerPath: /b, type: tmpfs}]", "\"tmpfs\""),
            ("mounts: [{hostPath: /a, containerPath: /b, options: [shared]}]", "\"shared\""),
        ] {
            let document = Document::from_yaml(&WHOLE.replacen("env: [A=1]", put, 1)).unwrap();
            let problem = document.container_edits.unsupported().unwrap_or_default();
            assert!(problem.contains(told), "{put}: {problem}");
        }
    }

    #[test]
    fn aliases_do_not_grow_beyond_bounds() {
        let mut text = "cdiVersion: \"1.0.0\"\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let above = format!("*a{},", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{above}]\n"));
        }
        assert!(Document::from_yaml(&text).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in any::<String>()) {
            let _ = Document::from_yaml(&text);
            let _ = Document::from_json(&text);
        }

        #[test]
        fn a_damaged_document_is_read_without_panic(
            at in any::<prop::sample::Index>(),
            put in "[\\[\\]{}:,&*!|>'\"% a0\t\n-]{0,4}",
        ) {
            let mut at = at.index(WHOLE.len());
            while !WHOLE.is_char_boundary(at) {
                at -= 1;
            }
            let _ = Document::from_yaml(&format!("{}{put}{}", &WHOLE[..at], &WHOLE[at..]));
        }
    }
}
