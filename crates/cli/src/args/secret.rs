//! `--secret id=…,src=…|env=…`.

use rbuild::{SecretKey, Secrets};

use crate::environment::Environment;
use crate::failure::Failure;

/// Reads all secrets. They are small files, and a missing one is better said before the build.
pub fn read(options: &[String], environment: &Environment) -> Result<Secrets, Failure> {
    let mut secrets = Secrets::default();
    for option in options {
        let (id, value, key) = read_one(option, environment)?;
        secrets.insert_keyed(id, value, key);
    }
    secrets.mac_key = environment.secret_key();
    Ok(secrets)
}

fn read_one(
    option: &str,
    environment: &Environment,
) -> Result<(String, Vec<u8>, SecretKey), Failure> {
    let refuse = |why: &str| {
        Failure::usage_hint(
            format!("--secret {option}: {why}"),
            "the form is id=NAME,src=FILE or id=NAME,env=VARIABLE",
        )
    };
    let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
    let mut in_key = SecretKey::Nothing;
    for field in option.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| refuse("a field without `=`"))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "id" => id = Some(value),
            "src" | "source" => source = Some(value),
            "env" => variable = Some(value),
            "type" if ["file", "env"].contains(&value) => kind = Some(value),
            "key" if value == "content" => in_key = SecretKey::Content,
            "key" if !value.is_empty() => in_key = SecretKey::Version(value.to_owned()),
            "type" => return Err(refuse("the type is neither `file` nor `env`")),
            other => return Err(refuse(&format!("no field `{other}`"))),
        }
    }
    // Docker lets the id be left out beside a source.
    let id = id.or(source).or(variable).filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| refuse("no id"))?.to_owned();
    // `type=env,src=NAME` is the other spelling of `env=NAME`.
    let (source, variable) = match kind {
        Some("env") => (None, variable.or(source).or(Some(id.as_str()))),
        Some("file") => (source.or(Some(id.as_str())), None),
        _ => (source, variable),
    };
    let of_variable = |name: &str| {
        let unset = || Failure::usage(format!("--secret id={id}: variable {name} is not set"));
        environment.bytes(name).ok_or_else(unset)
    };
    let of_file =
        |path: &str| fs_err::read(path).map_err(Failure::io(format!("read the secret {id}")));
    let value = match (source, variable) {
        (Some(_), Some(_)) => return Err(refuse("both src and env")),
        (Some(path), None) => of_file(path)?,
        (None, Some(name)) => of_variable(name)?,
        (None, None) => match environment.bytes(&id) {
            Some(value) => value,
            None => of_file(&id)?,
        },
    };
    Ok((id, value, in_key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_a_secret() {
        let environment = Environment::of(&[("TOKEN", "t0p")]);
        let read = |option: &str| read_one(option, &environment);
        let nothing = SecretKey::Nothing;
        assert_eq!(read("id=a,env=TOKEN").unwrap(), ("a".into(), b"t0p".to_vec(), nothing));
        assert_eq!(read("id=TOKEN,key=content").unwrap().2, SecretKey::Content);
        assert_eq!(read("id=TOKEN,key=v3").unwrap().2, SecretKey::Version("v3".to_owned()));
        assert_eq!(read("id=TOKEN").unwrap().1, b"t0p");
        assert_eq!(read("type=env,id=TOKEN").unwrap().1, b"t0p");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), "in a file").unwrap();
        let option = format!("id=b,src={}", file.path().display());
        assert_eq!(read(&option).unwrap(), ("b".into(), b"in a file".to_vec(), SecretKey::Nothing));
        for bad in
            ["id=x,env=UNSET", "x", "id=x,src=/none", "id=", "id=x,type=y", "id=x,src=a,env=b"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
