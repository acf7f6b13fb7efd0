//! What proves who somebody is.

use std::fmt;

/// A text that must not be seen: it has neither `Debug` nor `Display`.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Holds `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// A user of a registry. `Debug` shows the name only.
#[derive(Clone)]
pub struct Login {
    /// User name; `<token>` where the password is an identity token, as credential helpers say it.
    pub user: String,
    /// Password, or whatever the registry takes for one.
    pub password: Secret,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What is stored for a registry.
#[derive(Clone)]
pub(crate) enum Credential {
    /// User name and password.
    Password(Login),
    /// A refresh token for the token server.
    IdentityToken(Secret),
    /// A token for the registry itself.
    RegistryToken(Secret),
}

impl Credential {
    /// Helpers mark identity tokens by the user name `<token>`.
    pub(crate) fn of(login: Login) -> Self {
        match login.user.as_str() {
            "<token>" => Self::IdentityToken(login.password),
            _ => Self::Password(login),
        }
    }

    pub(crate) fn user(&self) -> &str {
        match self {
            Self::Password(login) => &login.user,
            Self::IdentityToken(_) => "<identity token>",
            Self::RegistryToken(_) => "<registry token>",
        }
    }
}

#[cfg(test)]
impl Credential {
    /// All of it, which only tests may see.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Password(login) => format!("{}:{}", login.user, login.password.expose()),
            Self::IdentityToken(token) => format!("identity {}", token.expose()),
            Self::RegistryToken(token) => format!("registry {}", token.expose()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password() {
        let login = Login { user: "me".to_owned(), password: Secret::new("hunter2") };
        let text = format!("{login:?}");
        assert!(text.contains("me") && !text.contains("hunter2"), "{text}");
    }
}
