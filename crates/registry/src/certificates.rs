//! Certificates of single hosts: directories like `/etc/docker/certs.d`, which podman has too.
//!
//! `HOST[:PORT]/*.crt` are trusted when that host is spoken to, besides the system's roots;
//! `NAME.cert` and `NAME.key` there are what we show to it.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Identity};

use crate::RegistryOptions;
use crate::place::Origin;
use crate::transport::cause;

/// Largest certificate file, bytes.
const MAX_CERTIFICATE: u64 = 1 << 20;

/// What a host has of its own.
#[derive(Default)]
pub(crate) struct Certificates {
    pub(crate) roots: Vec<Certificate>,
    /// Who we are towards it.
    pub(crate) identity: Option<Identity>,
}

/// The directories that are about this origin: everybody's alone if there is one, else in each of
/// the options' ones `host:port` before `host`, as Docker.
pub(crate) fn directories(options: &RegistryOptions, origin: &Origin) -> Vec<PathBuf> {
    if let Some(everybody_s) = &options.cert_dir {
        return vec![everybody_s.clone()];
    }
    // URL hosts have neither slash nor `..`, except that a host could be made of dots only.
    if origin.host.contains('/') || origin.host.starts_with('.') {
        return Vec::new();
    }
    let names = [format!("{}:{}", origin.host, origin.port), origin.host.clone()];
    let of = |directory: &PathBuf| {
        let paths = names.iter().map(|name| directory.join(name));
        paths.into_iter().find(|path| path.is_dir())
    };
    options.certs_dirs.iter().filter_map(of).collect()
}

/// Reads what is in the directories: all roots, and who we are by the first that says so.
pub(crate) fn read(directories: &[PathBuf]) -> io::Result<Certificates> {
    let mut found = Certificates::default();
    for directory in directories {
        let mut paths = fs_err::read_dir(directory)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        let is_known = found.identity.is_some();
        for path in paths {
            let refuse = |reason: &str| io::Error::other(format!("{}: {reason}", path.display()));
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => {
                    let certificates = Certificate::from_pem_bundle(&contents(&path)?);
                    found.roots.extend(certificates.map_err(|error| refuse(&cause(&error)))?);
                }
                Some("cert") if is_known => {}
                Some("cert") if found.identity.is_some() => {
                    return Err(refuse("there is another client certificate, and one is shown"));
                }
                Some("cert") => {
                    let key = path.with_extension("key");
                    let mut both = contents(&path)?;
                    both.push(b'\n');
                    both.extend(contents(&key)?);
                    let identity = Identity::from_pem(&both);
                    // The error must not repeat the key.
                    found.identity = Some(identity.map_err(|_| {
                        refuse("this and the .key beside it are no certificate and its key")
                    })?);
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(MAX_CERTIFICATE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_CERTIFICATE {
        let reason = format!("{}: more than a certificate can have", path.display());
        return Err(io::Error::other(reason));
    }
    Ok(bytes)
}
