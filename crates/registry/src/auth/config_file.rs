//! Changes Docker's `config.json`: what a login is about, and nothing else. The other fields stay
//! as they stand there, byte for byte and in their order, known or not.
//!
//! The new text is written beside the file, under a lock, and takes its place whole. So two logins
//! at once lose neither, and a reader sees the old file or the new one.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;
use serde_json::ser::PrettyFormatter;
use serde_json::value::{RawValue, to_raw_value};

use super::beside::Beside;
use super::config_json::{BASE64, failed, read_file, without_text};
use super::credential::Login;
use crate::RegistryError;

/// The field with the credentials.
const AUTHS: &str = "auths";
/// Symbolic links that are followed to a file that is missing; as many as Linux follows.
const MAX_LINKS: usize = 40;

/// The file, locked against other logins.
pub(super) struct ConfigFile {
    path: PathBuf,
    beside: Beside,
    fields: Fields,
    auths: Fields,
}

/// A JSON object whose values are not looked at.
#[derive(Default)]
struct Fields(Vec<(String, Box<RawValue>)>);

impl ConfigFile {
    /// Waits for its turn and reads the file; a missing one is an empty one. Symbolic links are
    /// followed, so that they stay.
    pub(super) fn open(path: &Path) -> Result<Self, RegistryError> {
        let path = resolved(path)?;
        let beside = Beside::open(&path)
            .map_err(|error| failed(&path)(format!("cannot write beside it ({error})")))?;
        let unreadable = |error: serde_json::Error| failed(&path)(without_text(&error));
        let fields = match read_file(&path)? {
            Some(bytes) if bytes.iter().any(|byte| !byte.is_ascii_whitespace()) => {
                serde_json::from_slice(&bytes).map_err(unreadable)?
            }
            _ => Fields::default(),
        };
        let stored = fields.0.iter().find(|(key, value)| key == AUTHS && value.get() != "null");
        let auths = match stored {
            Some((_, stored)) => serde_json::from_str(stored.get()).map_err(unreadable)?,
            None => Fields::default(),
        };
        Ok(Self { path, beside, fields, auths })
    }

    /// Stores the login under `key`, or says that a helper has it.
    pub(super) fn put(&mut self, key: &str, login: Option<&Login>) -> Result<(), RegistryError> {
        let entry = match login {
            Some(login) => {
                let both = format!("{}:{}", login.user, login.password.expose());
                json!({"auth": BASE64.encode(both)})
            }
            None => json!({}),
        };
        let entry =
            to_raw_value(&entry).map_err(|error| failed(&self.path)(without_text(&error)))?;
        let entries = &mut self.auths.0;
        match entries.iter_mut().find(|(stored, _)| stored == key) {
            Some((_, stored)) => *stored = entry,
            None => entries.push((key.to_owned(), entry)),
        }
        Ok(())
    }

    /// Removes what is stored under keys that `is_meant`; whether there was anything.
    pub(super) fn remove(&mut self, is_meant: impl Fn(&str) -> bool) -> bool {
        let before = self.auths.0.len();
        self.auths.0.retain(|(key, _)| !is_meant(key));
        self.auths.0.len() < before
    }

    /// Puts the new text in the place of the old one, readable for its owner only.
    pub(super) fn write(mut self) -> Result<(), RegistryError> {
        let failed = failed(&self.path);
        let mut text = Vec::new();
        let formatter = PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        Written { fields: &self.fields, auths: &self.auths }
            .serialize(&mut serializer)
            .map_err(|error| failed(without_text(&error)))?;
        text.push(b'\n');
        self.beside
            .replace(&self.path, &text)
            .map_err(|error| failed(format!("cannot write it ({})", error.kind())))
    }
}

/// Where links lead, be there a file or not.
fn resolved(path: &Path) -> Result<PathBuf, RegistryError> {
    if let Ok(path) = fs_err::canonicalize(path) {
        return Ok(path);
    }
    let mut found = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs_err::read_link(&found) {
            Ok(target) => found = found.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(found),
        }
    }
    Err(failed(path)("its symbolic links lead nowhere".to_owned()))
}

/// The whole file, with its credentials where they were, or else at the end.
struct Written<'a> {
    fields: &'a Fields,
    auths: &'a Fields,
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.fields.0 {
            match key.as_str() {
                AUTHS => map.serialize_entry(key, self.auths)?,
                _ => map.serialize_entry(key, value)?,
            }
        }
        if !self.fields.0.iter().any(|(key, _)| key == AUTHS) {
            map.serialize_entry(AUTHS, self.auths)?;
        }
        map.end()
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use proptest::prelude::*;

    use super::super::config_json::parse;
    use super::super::credential::Secret;
    use super::*;

    fn login(user: &str, password: &str) -> Login {
        Login { user: user.to_owned(), password: Secret::new(password) }
    }

    fn put(path: &Path, key: &str, login: &Login) {
        let mut file = ConfigFile::open(path).unwrap();
        file.put(key, Some(login)).unwrap();
        file.write().unwrap();
    }

    fn stored(path: &Path, host: &str) -> Option<String> {
        let config = parse(&fs_err::read(path).unwrap()).unwrap();
        config.of_host(host).map(|found| found.shown())
    }

    #[test]
    fn a_login_changes_its_own_entry_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let text = "{\n  \"zeta\" : 1.50,\n \"auths\": {\"b.io\":{ \"auth\":\"eDp5\", \"x\":1 },\n\
                    \"a.io\":{\"auth\":\"bTpu\"}},\"plugins\": {\"k\":  {\"v\":1e400}}, \"alpha\":[ ]}";
        fs_err::write(&path, text).unwrap();
        fs_err::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        put(&path, "a.io", &login("me", "pass:word"));
        put(&path, "c.io", &login("you", "é"));
        let written = fs_err::read_to_string(&path).unwrap();
        for part in
            ["\"zeta\": 1.50,", "{ \"auth\":\"eDp5\", \"x\":1 }", "{\"k\":  {\"v\":1e400}}", "[ ]"]
        {
            assert!(written.contains(part), "{part}: {written}");
        }
        let places: Vec<_> = ["zeta", "auths", "b.io", "a.io", "c.io", "plugins", "alpha"]
            .map(|key| written.find(&format!("\"{key}\"")).unwrap())
            .into();
        assert!(places.is_sorted(), "{written}");
        assert_eq!(stored(&path, "a.io").as_deref(), Some("me:pass:word"));
        assert_eq!(stored(&path, "c.io").as_deref(), Some("you:é"));
        assert_eq!(fs_err::metadata(&path).unwrap().mode() & 0o777, 0o600);

        let mut file = ConfigFile::open(&path).unwrap();
        assert!(!file.remove(|key| key == "d.io"));
        assert!(file.remove(|key| key == "a.io"));
        file.write().unwrap();
        assert_eq!((stored(&path, "a.io"), stored(&path, "b.io")), (None, Some("x:y".to_owned())));
        assert_eq!(
            fs_err::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing stays beside it"
        );
    }

    #[test]
    fn a_missing_file_is_made_and_a_link_stays_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/config.json");
        put(&path, "a.io", &login("me", "x"));
        let mode = fs_err::metadata(path.parent().unwrap()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
        let link = directory.path().join("link");
        fs_err::os::unix::fs::symlink(&path, &link).unwrap();
        put(&link, "b.io", &login("me", "x"));
        assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink());
        assert!(stored(&path, "b.io").is_some());

        // Also where the file is not there yet.
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        fs_err::os::unix::fs::symlink("second", &first).unwrap();
        fs_err::os::unix::fs::symlink("later/config.json", &second).unwrap();
        put(&first, "a.io", &login("me", "x"));
        assert!(fs_err::symlink_metadata(&first).unwrap().is_symlink());
        assert!(stored(&directory.path().join("later/config.json"), "a.io").is_some());
        let circle = directory.path().join("circle");
        fs_err::os::unix::fs::symlink("circle", &circle).unwrap();
        let error = ConfigFile::open(&circle).err().unwrap().to_string();
        assert!(error.contains("links"), "{error}");
    }

    #[test]
    fn logins_at_once_lose_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let key = |thread, number| format!("r{thread}-{number}.io");
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for number in 0..12 {
                        put(path, &key(thread, number), &login("me", "x"));
                    }
                });
            }
        });
        let mut all = (0..8).flat_map(|thread| (0..12).map(move |number| key(thread, number)));
        assert_eq!(all.find(|key| stored(&path, key).is_none()), None);
    }

    #[test]
    fn what_is_no_configuration_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        for text in ["[]", "{\"auths\":[\"hunter2\"]}", "hunter2"] {
            fs_err::write(&path, text).unwrap();
            let error = ConfigFile::open(&path).err().unwrap().to_string();
            assert!(error.contains("config.json") && !error.contains("hunter2"), "{error}");
            assert_eq!(fs_err::read_to_string(&path).unwrap(), text);
        }
    }

    proptest! {
        #[test]
        fn any_login_comes_back(
            key in "[a-z\"\\\\é]{1,12}\\.io", user in "[^:\0]{1,20}", password in "[^\0]{0,20}"
        ) {
            prop_assume!(user != "<token>");
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("config.json");
            put(&path, &key, &login(&user, &password));
            prop_assert_eq!(stored(&path, &key), Some(format!("{user}:{password}")));
        }
    }
}
