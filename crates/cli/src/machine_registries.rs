//! What the machine's files say of registries: podman's `registries.conf` with the files beside it,
//! and Docker's `daemon.json`.
//!
//! A file that is missing says nothing. One that cannot be read or understood is an error: it may be
//! the one that blocks a registry.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rbuild::{BuildError, Mirror, RegistriesConf, RegistryOptions, Serves};
use serde::Deserialize;

use crate::environment::Environment;
use crate::failure::Failure;

/// podman's file for all users; further files are in the directory of the same name with `.d`.
const CONTAINERS: &str = "/etc/containers/registries.conf";
/// That of Docker's daemon.
const DAEMON: &str = "/etc/docker/daemon.json";

/// What of Docker's file is about registries.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Daemon {
    #[serde(default)]
    insecure_registries: Vec<String>,
    /// URLs of mirrors of Docker Hub.
    #[serde(default)]
    registry_mirrors: Vec<String>,
}

/// Adds it all to the options.
pub fn add(options: &mut RegistryOptions, environment: &Environment) -> Result<(), Failure> {
    for file in files(environment)? {
        if let Some(text) = read(&file)? {
            conf(&mut options.registries, &file, &text)?;
        }
    }
    let file = Path::new(DAEMON);
    match read(file)? {
        Some(text) => daemon(options, file, &text),
        None => Ok(()),
    }
}

/// podman's files, in the order in which they are read. The user's own takes the place of the
/// machine's; what is in the directories comes on top.
fn files(environment: &Environment) -> Result<Vec<PathBuf>, Failure> {
    let own = environment.config_home().map(|home| home.join("containers/registries.conf"));
    let main = match (environment.filled("CONTAINERS_REGISTRIES_CONF"), &own) {
        (Some(named), _) => PathBuf::from(named),
        (None, Some(own)) if own.exists() => own.clone(),
        (None, _) => CONTAINERS.into(),
    };
    let mut files = vec![main];
    for file in [Some(PathBuf::from(CONTAINERS)), own].into_iter().flatten() {
        files.extend(beside(&file.with_extension("conf.d"))?);
    }
    Ok(files)
}

/// The `*.conf` of a directory, by name.
fn beside(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::io("look for files about registries")(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Failure::io("look for files about registries"))?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(file: &Path) -> Result<Option<String>, Failure> {
    match fs_err::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io("read a file about registries")(error)),
    }
}

fn conf(registries: &mut RegistriesConf, file: &Path, text: &str) -> Result<(), Failure> {
    Ok(registries.add(file, text).map_err(BuildError::from)?)
}

fn daemon(options: &mut RegistryOptions, file: &Path, text: &str) -> Result<(), Failure> {
    let refused = |reason| Failure::usage(format!("{}: {reason}", file.display()));
    let daemon: Daemon = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
    options.insecure.extend(daemon.insecure_registries);
    for url in daemon.registry_mirrors {
        let is_url = url.starts_with("http://") || url.starts_with("https://");
        let Some(mirror) = mirror(&url).filter(|_| is_url) else {
            return Err(refused(format!("the mirror {url:?} is no URL")));
        };
        options.mirrors.entry("docker.io".to_owned()).or_default().push(mirror);
    }
    Ok(())
}

/// A mirror as people write it: by its URL, or by its location alone, which speaks TLS.
pub fn mirror(text: &str) -> Option<Mirror> {
    let (location, insecure) = match text.strip_prefix("http://") {
        Some(location) => (location, true),
        None => (text.strip_prefix("https://").unwrap_or(text), false),
    };
    let location = location.trim_end_matches('/').to_owned();
    (!location.is_empty()).then_some(Mirror { location, insecure, serves: Serves::All })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_s_file_takes_the_place_of_the_machine_s() {
        let home = tempfile::tempdir().unwrap();
        let containers = home.path().join(".config/containers");
        let dropped = containers.join("registries.conf.d");
        fs_err::create_dir_all(&dropped).unwrap();
        for name in ["b.conf", "a.conf", "c.txt"] {
            fs_err::write(dropped.join(name), "").unwrap();
        }
        let of = |variables: &[_]| files(&Environment::of(variables)).unwrap();
        let home = ("HOME", home.path().to_str().unwrap());
        let found = of(&[home]);
        assert_eq!(found[0], Path::new(CONTAINERS));
        assert!(found.ends_with(&[dropped.join("a.conf"), dropped.join("b.conf")]), "{found:?}");
        let own = containers.join("registries.conf");
        fs_err::write(&own, "").unwrap();
        assert_eq!(of(&[home])[0], own);
        let named = ("CONTAINERS_REGISTRIES_CONF", "/x");
        assert_eq!(of(&[home, named])[0], Path::new("/x"));
    }

    #[test]
    fn docker_s_daemon_names_mirrors_and_who_is_insecure() {
        let mut options = RegistryOptions::default();
        let text = r#"{"debug": true, "insecure-registries": ["r.example:5000", "10.0.0.0/8"],
            "registry-mirrors": ["https://m.example/", "http://p.example:5000"]}"#;
        daemon(&mut options, Path::new(DAEMON), text).unwrap();
        assert_eq!(options.insecure, ["r.example:5000", "10.0.0.0/8"]);
        let mirrors: Vec<_> = options.mirrors["docker.io"]
            .iter()
            .map(|mirror| (mirror.location.as_str(), mirror.insecure))
            .collect();
        assert_eq!(mirrors, [("m.example", false), ("p.example:5000", true)]);
        for bad in [
            "",
            "[",
            r#"{"registry-mirrors": ["m.example"]}"#,
            r#"{"registry-mirrors": ["http://"]}"#,
        ] {
            let error = daemon(&mut options, Path::new(DAEMON), bad).unwrap_err();
            assert!(format!("{error:?}").contains(DAEMON), "{bad}: {error:?}");
        }
    }
}
