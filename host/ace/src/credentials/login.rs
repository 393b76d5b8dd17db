//! Logins to mail servers, which are not requests.

use std::sync::Arc;

use super::tokens::Tokens;
use super::{Credentials, Judgement, Problem, Refusal};
use crate::config::{CredentialKind, Secret};

/// What a login to a mail server consists of.
pub(crate) struct Login {
    /// The credential.
    name: String,
    /// The user's name, if the credential has one.
    pub(crate) username: Option<String>,
    /// The password, or an access token.
    pub(crate) secret: Secret,
    /// Whether it is an access token.
    pub(crate) is_token: bool,
    /// Where the token is from, and its number.
    source: Option<(Arc<Tokens>, u64)>,
}

impl Credentials {
    /// A login with a credential. Whoever configures a mail server grants it, so `urls` does not matter.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a kind that cannot log in, or as [`Credentials::authorize`].
    pub(crate) async fn login(&self, name: &str) -> Result<Login, Refusal> {
        let entry = self.find(name)?;
        let kind = &entry.credential.kind;
        if !kind.can_log_in() {
            let message = format!("the credential {name:?} ({}) cannot log in to a mail server", kind.name());
            return Err(Refusal::Invalid(message));
        }
        let of = |problem: Problem| problem.of(name);
        let login = |username: Option<&String>, secret, is_token, source| {
            Ok(Login { name: name.to_owned(), username: username.cloned(), secret, is_token, source })
        };
        if let Some(tokens) = &entry.tokens {
            let token = tokens.get(&self.context).await?;
            return login(None, token.value, true, Some((tokens.clone(), token.number)));
        }
        match kind {
            CredentialKind::Basic { username, password } => {
                login(Some(username), self.first(name, password).await.map_err(of)?, false, None)
            }
            CredentialKind::Bearer { token } => login(None, self.first(name, token).await.map_err(of)?, true, None),
            _ => Err(of(Problem::Credential("has no secret".to_owned()))),
        }
    }

    /// What it says of the credential that a mail server refused the login.
    pub(crate) fn login_refused(&self, login: &Login) -> Judgement {
        match &login.source {
            Some((tokens, number)) => tokens.refused(*number, (self.context.now)()),
            None => Judgement::Rejected(format!("the credential {:?} was refused", login.name)),
        }
    }
}
