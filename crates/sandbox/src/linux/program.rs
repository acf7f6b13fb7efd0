//! Finding and executing the program.

use std::ffi::CString;
use std::io::{self, Read as _};

use rustix::fs::{Access, CWD, FileType, accessat, statat};

use crate::linux::binfmt;
use crate::linux::child::During as _;
use crate::linux::user::Identity;
use crate::{Spec, StartFailure, sys};

/// Docker's exit code for a program that is not there.
const NOT_FOUND: i32 = 127;
/// Docker's exit code for a program that cannot be executed.
const NOT_EXECUTABLE: i32 = 126;

/// A program with all its strings ready.
pub(crate) struct Prepared {
    name: String,
    argv: Vec<CString>,
    env: Vec<CString>,
    path: String,
}

impl Prepared {
    pub(crate) fn new(spec: &Spec, identity: &Identity) -> Result<Self, StartFailure> {
        let c_string = |text: &String| CString::new(text.as_str());
        let argv: Result<Vec<_>, _> = spec.argv.iter().map(c_string).collect();
        let mut variables = spec.env.clone();
        if !variables.iter().any(|variable| variable.starts_with("HOME=")) {
            let home = identity.home.as_deref().unwrap_or("/");
            variables.push(format!("HOME={home}"));
        }
        let env: Result<Vec<_>, _> = variables.iter().map(c_string).collect();
        let path = spec.env.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
        Ok(Self {
            name: spec.argv.first().cloned().unwrap_or_default(),
            argv: argv.during("pass arguments: one holds a zero byte")?,
            env: env.during("pass the environment: a variable holds a zero byte")?,
            path: path.unwrap_or_default().to_owned(),
        })
    }

    /// Executes it; returns only when that fails.
    pub(crate) fn exec(&self) -> StartFailure {
        let mut denied = None;
        for candidate in self.candidates() {
            if let Err(error) = executable(&candidate) {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    denied = Some(error);
                }
                continue;
            }
            let Ok(program) = CString::new(candidate.as_str()) else { continue };
            let argv: Vec<_> = self.argv.iter().map(CString::as_c_str).collect();
            let env: Vec<_> = self.env.iter().map(CString::as_c_str).collect();
            let error = sys::exec(&program, &argv, &env);
            // A script whose interpreter is missing is "not found" as well.
            let code =
                if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
            let reason = match (error.raw_os_error(), architecture(&candidate)) {
                (Some(libc::ENOEXEC), Some(architecture)) => format!(
                    "exec format error: it is a program for {architecture}, and no emulator that \
                     the kernel holds open (flag F) is registered in {}",
                    binfmt::DIRECTORY
                ),
                _ => error.to_string(),
            };
            return self.failure(reason, code);
        }
        match denied {
            Some(error) => self.failure(error.to_string(), NOT_EXECUTABLE),
            None if self.name.contains('/') => {
                self.failure("no such file or directory".to_owned(), NOT_FOUND)
            }
            None => self.failure("executable file not found in $PATH".to_owned(), NOT_FOUND),
        }
    }

    fn candidates(&self) -> Vec<String> {
        if self.name.is_empty() {
            return Vec::new();
        }
        if self.name.contains('/') {
            return vec![self.name.clone()];
        }
        let directories = self.path.split(':');
        directories
            .map(|directory| if directory.is_empty() { "." } else { directory })
            .map(|directory| format!("{directory}/{}", self.name))
            .collect()
    }

    fn failure(&self, reason: String, code: i32) -> StartFailure {
        StartFailure { action: format!("execute {:?}", self.name), reason, code }
    }
}

/// What the program at `path` is for, as far as that can be read.
fn architecture(path: &str) -> Option<&'static str> {
    let mut head = [0; binfmt::IDENTIFIED];
    fs_err::File::open(path).ok()?.read_exact(&mut head).ok()?;
    binfmt::architecture(&head)
}

/// Whether `path` is a file with an execute bit for this process.
fn executable(path: &str) -> io::Result<()> {
    let stat = statat(CWD, path, rustix::fs::AtFlags::empty())?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            Ok(accessat(CWD, path, Access::EXEC_OK, rustix::fs::AtFlags::empty())?)
        }
        FileType::Directory => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "is a directory"))
        }
        _ => Err(io::ErrorKind::PermissionDenied.into()),
    }
}
