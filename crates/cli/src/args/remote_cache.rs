//! `--cache-from` and `--cache-to`: `type=…,KEY=VALUE,…` as buildx takes them.

use rbuild::{
    BucketOptions, CacheExport, CacheImport, CacheLocation, CacheMode, CacheMounts, GhaLocation,
    S3Location, duration,
};

use crate::args::output::{encoding, split};
use crate::args::switch;
use crate::environment::Environment;
use crate::failure::Failure;

/// The key that may be there several times.
const MOUNTS: &str = "mounts";
const LATEST: &str = "latest";
const EXAMPLES: &str = "for example type=local,src=DIR or type=registry,ref=NAME";
const DEST_EXAMPLES: &str = "for example type=local,dest=DIR or type=registry,ref=NAME,mode=max";

/// Reads the value of one `--cache-from`.
pub fn from(text: &str, environment: &Environment) -> Result<CacheImport, Failure> {
    let refuse =
        |why: String| Failure::usage_hint(format!("--cache-from {}: {why}", shown(text)), EXAMPLES);
    let mut options = Options::parse(text).map_err(refuse)?;
    let location = options.location("src", environment).map_err(refuse)?;
    options.nothing_left().map_err(refuse)?;
    Ok(CacheImport { location })
}

/// Reads the value of one `--cache-to`.
pub fn to(text: &str, environment: &Environment) -> Result<CacheExport, Failure> {
    let refuse = |why: String| {
        Failure::usage_hint(format!("--cache-to {}: {why}", shown(text)), DEST_EXAMPLES)
    };
    export(Options::parse(text).map_err(refuse)?, environment).map_err(refuse)
}

/// What may be repeated in a message.
fn shown(text: &str) -> &str {
    let lower = text.to_ascii_lowercase();
    let is_secret = ["secret", "token", "key"].iter().any(|word| lower.contains(word));
    if is_secret { "…" } else { text }
}

fn export(mut options: Options, environment: &Environment) -> Result<CacheExport, String> {
    let location = options.location("dest", environment)?;
    if let CacheLocation::Registry { reference, .. } = &location
        && reference.digest().is_some()
    {
        return Err("a cache is written to a tag, not to a digest".to_owned());
    }
    let mut export = CacheExport::new(location);
    export.mode = match options.take("mode").as_deref() {
        None | Some("min") => CacheMode::Min,
        Some("max") if export.location == CacheLocation::Inline => {
            return Err("an image has its own steps only: mode=max needs another type".to_owned());
        }
        Some("max") => CacheMode::Max,
        Some(other) => return Err(format!("mode={other} is neither min nor max")),
    };
    while let Some(id) = options.take(MOUNTS) {
        export.mounts.push(match id.as_str() {
            "" => return Err("mounts= needs the id of a cache mount, or *".to_owned()),
            "*" => CacheMounts::Named,
            _ => CacheMounts::Id(id),
        });
    }
    if export.location == CacheLocation::Inline {
        if !export.mounts.is_empty() {
            return Err(
                "an image has no room for cache mounts: mounts= needs another type".to_owned()
            );
        }
        options.nothing_left()?;
        return Ok(export);
    }
    let (compression, level) = (options.take("compression"), options.take("compression-level"));
    export.encoding = encoding(compression.as_deref(), level.as_deref())?;
    if export.encoding.is_estargz() {
        return Err("compression=estargz is of images: a cache takes uncompressed, gzip and zstd"
            .to_owned());
    }
    export.force_compression = options.switch("force-compression")?.unwrap_or(false);
    export.must_succeed = options.switch("ignore-error")? == Some(false);
    if let Some(text) = options.take("timeout") {
        export.timeout = duration(&text).ok_or_else(|| format!("timeout={text} is no duration"))?;
    }
    // A cache has the form of an OCI image and drops what it does not need, always.
    for always in ["image-manifest", "oci-mediatypes", "reset"] {
        if options.switch(always)? == Some(false) {
            return Err(format!("{always}=false is not supported: it is always true"));
        }
    }
    options.nothing_left()?;
    Ok(export)
}

/// The fields that nobody has asked for yet.
struct Options {
    kind: String,
    fields: Vec<(String, String)>,
}

impl Options {
    fn parse(text: &str) -> Result<Self, String> {
        // buildx takes the name of an image alone.
        if !text.contains('=') {
            let reference = ("ref".to_owned(), text.to_owned());
            return Ok(Self { kind: "registry".to_owned(), fields: vec![reference] });
        }
        let mut found = Self { kind: String::new(), fields: Vec::new() };
        for field in split(text) {
            let (key, value) =
                field.split_once('=').ok_or_else(|| format!("`{field}` has no value"))?;
            let key = key.trim().to_ascii_lowercase();
            match key.as_str() {
                "type" => found.kind = value.to_owned(),
                _ if key != MOUNTS && found.fields.iter().any(|(known, _)| *known == key) => {
                    return Err(format!("{key} is there twice"));
                }
                _ => found.fields.push((key, value.to_owned())),
            }
        }
        if found.kind.is_empty() {
            return Err("no type".to_owned());
        }
        Ok(found)
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.fields.iter().position(|(known, _)| known == key)?;
        Some(self.fields.remove(at).1)
    }

    fn needed(&mut self, key: &str) -> Result<String, String> {
        let value = self.take(key).filter(|value| !value.is_empty());
        value.ok_or_else(|| format!("type={} needs {key}=…", self.kind))
    }

    fn switch(&mut self, key: &str) -> Result<Option<bool>, String> {
        let Some(value) = self.take(key) else { return Ok(None) };
        switch::parse(&value).map(Some).map_err(|why| format!("{key}={value}: {why}"))
    }

    /// Where the cache is; the directory of a local one goes by the name `directory`.
    fn location(
        &mut self,
        directory: &str,
        environment: &Environment,
    ) -> Result<CacheLocation, String> {
        match self.kind.as_str() {
            "local" => {
                let path = self.needed(directory)?.into();
                let tag = self.take("tag").unwrap_or_else(|| LATEST.to_owned());
                let digest = match self.take("digest").filter(|_| directory == "src") {
                    None => None,
                    Some(text) => {
                        Some(text.parse().map_err(|error| format!("digest={text}: {error}"))?)
                    }
                };
                Ok(CacheLocation::Local { path, tag, digest })
            }
            "registry" => {
                let text = self.needed("ref")?;
                let reference = text.parse().map_err(|error| format!("ref={text}: {error}"))?;
                let insecure = self.switch("registry.insecure")?.unwrap_or(false);
                Ok(CacheLocation::Registry { reference, insecure })
            }
            "inline" if directory == "src" => {
                let image = "type=registry,ref=IMAGE";
                Err(format!("steps that are in an image are taken from its name: {image}"))
            }
            "inline" => Ok(CacheLocation::Inline),
            "s3" => Ok(CacheLocation::S3(self.bucket(environment)?)),
            "gha" => Ok(CacheLocation::Gha(self.workflow(environment)?)),
            "azblob" => Err("type=azblob is not supported yet".to_owned()),
            other => Err(format!("no type `{other}`")),
        }
    }

    /// Options that are not there are taken from the variables of a workflow's job.
    fn workflow(&mut self, environment: &Environment) -> Result<GhaLocation, String> {
        let mut option = |key: &str, variable: &str| {
            let found = self.take(key).or_else(|| environment.get(variable).map(str::to_owned));
            let found = found.filter(|value| !value.is_empty());
            found.ok_or_else(|| {
                format!("type=gha needs {key}=…, or {variable}, which only steps of actions have")
            })
        };
        let url = option("url_v2", "ACTIONS_RESULTS_URL")?;
        let token = option("token", "ACTIONS_RUNTIME_TOKEN")?;
        let scope = self.take("scope").unwrap_or_else(|| "rbuild".to_owned());
        Ok(GhaLocation { url, token, scope })
    }

    /// Options that are not there are taken from the variables of AWS' own tools.
    fn bucket(&mut self, environment: &Environment) -> Result<S3Location, String> {
        let mut option = |key: &str, variables: &[&str]| {
            let given = self.take(key).filter(|value| !value.is_empty());
            let mut variables = variables.iter();
            given.or_else(|| variables.find_map(|name| environment.get(name)).map(str::to_owned))
        };
        let needed = |key: &str, found: Option<String>, variable: &str| {
            found.ok_or_else(|| format!("type=s3 needs {key}=…, or {variable}"))
        };
        let bucket = needed("bucket", option("bucket", &["AWS_BUCKET"]), "AWS_BUCKET")?;
        let region = option("region", &["AWS_REGION", "AWS_DEFAULT_REGION"]);
        let region = needed("region", region, "AWS_REGION")?;
        let id = option("access_key_id", &["AWS_ACCESS_KEY_ID"]);
        let secret = option("secret_access_key", &["AWS_SECRET_ACCESS_KEY"]);
        let session_token = option("session_token", &["AWS_SESSION_TOKEN"]);
        let endpoint_url = option("endpoint_url", &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
        let key = match (id, secret) {
            (Some(id), Some(secret)) => Some((id, secret)),
            (None, None) => None,
            _ => return Err("access_key_id and secret_access_key belong together".to_owned()),
        };
        let use_path_style = self.switch("use_path_style")?.unwrap_or(false);
        let retries = match self.take("retry_max_attempts") {
            None => None,
            Some(text) => {
                let count = text.parse::<usize>().ok().and_then(|count| count.checked_sub(1));
                Some(
                    count
                        .ok_or_else(|| format!("retry_max_attempts={text} is no number from 1"))?,
                )
            }
        };
        let mut location = S3Location::new(BucketOptions {
            bucket,
            region,
            endpoint_url,
            use_path_style,
            key,
            session_token,
            retries,
        });
        for (key, part) in [
            ("prefix", &mut location.prefix),
            ("manifests_prefix", &mut location.manifests_prefix),
            ("blobs_prefix", &mut location.blobs_prefix),
            ("name", &mut location.name),
        ] {
            if let Some(value) = self.take(key) {
                *part = value;
            }
        }
        if location.name.contains(';') {
            return Err("several names are not supported yet: repeat the flag".to_owned());
        }
        Ok(location)
    }

    fn nothing_left(&self) -> Result<(), String> {
        match self.fields.first() {
            None => Ok(()),
            Some((key, value)) => {
                Err(format!("{key}={value} is not supported for type={}", self.kind))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rbuild::Encoding;

    use super::*;

    fn from(text: &str) -> Result<CacheImport, Failure> {
        super::from(text, &Environment::default())
    }

    fn to(text: &str) -> Result<CacheExport, Failure> {
        super::to(text, &Environment::default())
    }

    fn local(path: &str, tag: &str) -> CacheLocation {
        CacheLocation::Local { path: path.into(), tag: tag.to_owned(), digest: None }
    }

    #[test]
    fn directories() {
        assert_eq!(from("type=local,src=d").unwrap().location, local("d", "latest"));
        assert_eq!(from("type=local,src=d,tag=main").unwrap().location, local("d", "main"));
        let export = to("type=local,dest=d,mode=max").unwrap();
        assert_eq!((export.location, export.mode), (local("d", "latest"), CacheMode::Max));
    }

    #[test]
    fn registries() {
        let named = |text: &str, insecure| CacheLocation::Registry {
            reference: text.parse().unwrap(),
            insecure,
        };
        assert_eq!(
            from("type=registry,ref=a/b:cache").unwrap().location,
            named("a/b:cache", false)
        );
        assert_eq!(from("user/app:x").unwrap().location, named("user/app:x", false));
        let to = to("type=registry,ref=h:5000/c,mode=max,registry.insecure=true").unwrap();
        assert_eq!(to.location, named("h:5000/c", true));
    }

    #[test]
    fn workflows() {
        let variables =
            [("ACTIONS_RESULTS_URL", "https://h/"), ("ACTIONS_RUNTIME_TOKEN", "hidden")];
        let environment = Environment::of(&variables);
        let found = super::from("type=gha,scope=main", &environment).unwrap().location;
        let (url, token) = ("https://h/".to_owned(), "hidden".to_owned());
        assert!(!format!("{found:?}").contains("hidden"));
        assert_eq!(found, CacheLocation::Gha(GhaLocation { url, token, scope: "main".to_owned() }));
        assert!(from("type=gha").is_err());
        assert!(super::to("type=gha,ghtoken=x", &environment).is_err());
    }

    #[test]
    fn buckets() {
        assert_eq!(to("type=inline").unwrap().location, CacheLocation::Inline);
        let text = "type=s3,bucket=b,region=r,prefix=p/,name=n,endpoint_url=http://h,\
                    use_path_style=true,access_key_id=i,secret_access_key=s,retry_max_attempts=3";
        let CacheLocation::S3(location) = from(text).unwrap().location else { panic!() };
        assert_eq!((location.prefix.as_str(), location.name.as_str()), ("p/", "n"));
        assert_eq!(location.blobs_prefix, "blobs/");
        let bucket = location.bucket;
        assert!(bucket.use_path_style && bucket.retries == Some(2));
        assert_eq!(bucket.key, Some(("i".to_owned(), "s".to_owned())));
        let environment = Environment::of(&[("AWS_REGION", "r"), ("AWS_ACCESS_KEY_ID", "i")]);
        let found = format!("{:?}", super::from("type=s3,bucket=b", &environment));
        assert!(found.contains("belong together"), "{found}");
        let found = format!("{:?}", from("type=s3,bucket=b,region=r,secret_access_key=hidden"));
        assert!(found.contains("belong together") && !found.contains("hidden"), "{found}");
    }

    #[test]
    fn options_of_exports() {
        let plain = to("type=local,dest=d").unwrap();
        assert_eq!((plain.mode, plain.encoding), (CacheMode::Min, Encoding::GZIP));
        assert!(!plain.must_succeed && !plain.force_compression);
        assert_eq!(plain.timeout, Duration::from_secs(600));
        let all = to("type=local,dest=d,compression=zstd,compression-level=9,timeout=1m30s,\
                      force-compression=true,ignore-error=false,image-manifest=true,reset=true")
        .unwrap();
        assert_eq!(all.encoding, Encoding::Zstd { level: 9 });
        assert!(all.must_succeed && all.force_compression);
        assert_eq!(all.timeout, Duration::from_secs(90));
        assert!(!to("type=local,dest=d,ignore-error=true").unwrap().must_succeed);
    }

    #[test]
    fn cache_mounts() {
        let mounts = |text: &str| to(text).unwrap().mounts;
        let id = |id: &str| CacheMounts::Id(id.to_owned());
        assert_eq!(mounts("type=local,dest=d"), []);
        let both = mounts("type=local,dest=d,mounts=pip,mode=max,mounts=/root/.cache");
        assert_eq!(both, [id("pip"), id("/root/.cache")]);
        assert_eq!(mounts("type=registry,ref=a/b,mounts=*"), [CacheMounts::Named]);
        let error = format!("{:?}", to("type=inline,mounts=pip"));
        assert!(error.contains("no room for cache mounts"), "{error}");
    }

    #[test]
    fn the_rest_is_refused() {
        for bad in [
            "",
            "dest=d",
            "type=local",
            "type=local,src=d",
            "type=x,dest=d",
            "type=local,dest=d,mode=middle",
            "type=local,dest=d,compression=estargz",
            "type=local,dest=d,compression-level=10",
            "type=local,dest=d,compression=uncompressed,compression-level=1",
            "type=local,dest=d,image-manifest=false",
            "type=local,dest=d,timeout=10",
            "type=local,dest=d,dest=e",
            "type=local,dest=d,color=red",
            "type=local,dest",
            "type=azblob,name=x",
            "type=registry",
            "type=s3,bucket=b",
            "type=s3,bucket=b,region=r,touch_refresh=1h",
            "type=s3,bucket=b,region=r,name=a;b",
            "type=inline,mode=max",
            "type=inline,compression=zstd",
            "type=local,dest=d,mounts=",
            "type=registry,ref=A B",
            "type=local,dest=d,registry.insecure=true",
        ] {
            assert!(to(bad).is_err(), "{bad}");
        }
        assert!(from("type=inline").is_err());
        assert!(from("type=local,dest=d").is_err());
        assert!(from("type=local,src=d,mode=max").is_err());
        assert!(from("type=local,src=d,mounts=pip").is_err());
        assert!(from("type=local,src=d,digest=x").is_err());
    }
}
