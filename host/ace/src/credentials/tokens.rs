//! Tokens that end: shared by all workers, renewed before they end, by one of them at a time and not often.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::endpoint::Failure;
use super::sources::{Context, Lifetime, Source};
use super::{Judgement, Refusal};
use crate::config::{Secret, show_duration};

/// The longest pause that a server can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// How far in the future a stored token may have been made: the clocks of two hosts differ.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The tokens of one source.
pub(super) struct Tokens {
    /// For messages: the name of the first credential that uses the source.
    name: String,
    source: Source,
    state: Mutex<State>,
    /// Changes when a renewal ends.
    rounds: watch::Sender<u64>,
    /// A refresh token that could not be stored.
    unsaved: Mutex<Option<Secret>>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// The last token was refused, and is not sent any more.
    is_stale: bool,
    is_renewing: bool,
    failure: Option<Failure>,
    /// When the last renewal started, and when another one may.
    last_attempt: Option<Timestamp>,
    next_attempt: Timestamp,
}

/// Names the source alone.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tokens of {:?}", self.name)
    }
}

/// A token, and which one of its source it is.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) value: Secret,
    pub(super) number: u64,
    made: Timestamp,
    lifetime: Lifetime,
}

/// A token as it is stored, for other processes and the next start.
#[derive(Serialize, Deserialize)]
struct Stored {
    token: String,
    /// Seconds since 1970.
    made: i64,
    /// Seconds from then.
    renewal: u64,
    end: u64,
}

/// What to do for a caller.
enum Step {
    Use(Token),
    /// Use it, and renew it for later callers.
    UseAndRenew(Token),
    Renew,
    Wait,
    Fail(Refusal),
}

impl Token {
    fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.made)).unwrap_or(Duration::ZERO)
    }
}

impl Tokens {
    pub(super) fn new(name: &str, source: Source) -> Self {
        Tokens {
            name: name.to_owned(),
            source,
            state: Mutex::default(),
            rounds: watch::Sender::new(0),
            unsaved: Mutex::default(),
        }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// The current token. Only if there is none that is good, the caller waits for a renewal.
    pub(super) async fn get(self: &Arc<Self>, context: &Arc<Context>) -> Result<Token, Refusal> {
        loop {
            // Before the state is read, so that no end of a renewal is missed.
            let mut rounds = self.rounds.subscribe();
            let step = self.lock().step((context.now)(), &self.name, &self.source);
            match step {
                Step::Use(token) => return Ok(token),
                Step::UseAndRenew(token) => {
                    self.start_renewal(context);
                    return Ok(token);
                }
                Step::Renew => self.start_renewal(context),
                Step::Wait => {}
                Step::Fail(refusal) => return Err(refusal),
            }
            rounds.changed().await.expect("the sender lives as long as `self`");
        }
    }

    /// What a refusal of a token says: another one may do, or none will.
    pub(super) fn refused(&self, number: u64, now: Timestamp) -> Judgement {
        let mut state = self.lock();
        let Some(token) = state.token.as_ref().filter(|token| token.number == number) else { return Judgement::Stale };
        let age = token.age(now);
        if state.is_stale || state.may_renew(now) {
            state.is_stale = true;
            return Judgement::Stale;
        }
        let age = show_duration(Duration::from_secs(age.as_secs()));
        Judgement::Rejected(format!("the credential {:?} was refused with a token that was made {age} ago", self.name))
    }

    /// In a task of its own, which ends even if the caller does not wait for it.
    fn start_renewal(self: &Arc<Self>, context: &Arc<Context>) {
        let (tokens, context) = (self.clone(), context.clone());
        tokio::spawn(async move {
            let mut ending = Ending { tokens: &tokens, now: context.now, result: None };
            ending.result = Some(tokens.renew(&context).await);
        });
    }

    async fn renew(&self, context: &Context) -> Result<Token, Failure> {
        let material = self.source.material(&self.name, &context.secrets).await.map_err(|refusal| match refusal {
            Refusal::Unavailable { message, .. } => Failure::Unavailable(message, None),
            other => Failure::Rejected(other.to_string()),
        })?;
        let entry = format!("token:{}", self.source.fingerprint(&material));
        if let Some(token) = self.stored(&entry, context).await {
            return Ok(token);
        }
        // What is made now is at least as old as it says.
        let at = (context.now)();
        let made = self.source.renew(&self.name, &material, &self.unsaved, context).await?;
        let token = Token { value: made.token, number: self.next_number(), made: at, lifetime: made.lifetime };
        self.store(&entry, &token, context).await;
        Ok(token)
    }

    /// The token of another process that shares the store, if it is good and not the one that was refused.
    async fn stored(&self, entry: &str, context: &Context) -> Option<Token> {
        let now = (context.now)();
        let stored = context.store.get(entry, now).await.ok().flatten()?;
        let stored: Stored = serde_json::from_str(stored.expose()).ok()?;
        let lifetime = Lifetime { renewal: Duration::from_secs(stored.renewal), end: Duration::from_secs(stored.end) };
        let made = Timestamp::from_second(stored.made).ok()?;
        let token = Token { value: Secret::new(stored.token), number: self.next_number(), made, lifetime };
        let is_known = self.lock().token.as_ref().is_some_and(|known| known.value == token.value);
        let is_from_the_future = made > now.saturating_add(CLOCK_SKEW).unwrap_or(now);
        (!is_known && !is_from_the_future && token.age(now) < lifetime.renewal).then_some(token)
    }

    async fn store(&self, entry: &str, token: &Token, context: &Context) {
        let stored = Stored {
            token: token.value.expose().to_owned(),
            made: token.made.as_second(),
            renewal: token.lifetime.renewal.as_secs(),
            end: token.lifetime.end.as_secs(),
        };
        let Ok(json) = serde_json::to_string(&stored) else { return };
        let put = context.store.put(entry, &Secret::new(json), Some(token.lifetime.end), (context.now)()).await;
        if let Err(error) = put {
            tracing::warn!("The token of the credential {:?} is not shared with other processes: {error}", self.name);
        }
    }

    fn next_number(&self) -> u64 {
        self.lock().token.as_ref().map_or(1, |token| token.number + 1)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a renewal may start. A clock that was set back does not prevent it.
    fn may_renew(&self, now: Timestamp) -> bool {
        now >= self.next_attempt || self.last_attempt.is_some_and(|last| now < last)
    }

    fn step(&mut self, now: Timestamp, name: &str, source: &Source) -> Step {
        let token = self.token.as_ref().filter(|token| !self.is_stale && token.age(now) < token.lifetime.end).cloned();
        let may_renew = !self.is_renewing && self.may_renew(now);
        let is_due = token.as_ref().is_none_or(|token| token.age(now) >= token.lifetime.renewal);
        if is_due && may_renew {
            (self.is_renewing, self.last_attempt) = (true, Some(now));
            return match token {
                Some(token) if !source.is_local() => Step::UseAndRenew(token),
                _ => Step::Renew,
            };
        }
        match token {
            Some(token) => Step::Use(token),
            None if self.is_renewing => Step::Wait,
            None => Step::Fail(self.refusal(name)),
        }
    }

    /// The error of a caller that cannot have a token before the next attempt.
    fn refusal(&self, name: &str) -> Refusal {
        let next_attempt_time = self.next_attempt;
        match &self.failure {
            Some(Failure::Rejected(why)) => Refusal::Rejected(format!("the credential {name:?} has no token: {why}")),
            Some(Failure::Unavailable(why, _)) => {
                let message = format!("the credential {name:?} has no token now: {why}");
                Refusal::Unavailable { message, next_attempt_time }
            }
            None => {
                let message = format!("the credential {name:?} has no token now: the last one was refused");
                Refusal::Unavailable { message, next_attempt_time }
            }
        }
    }
}

/// Ends a renewal, even if its task panics.
struct Ending<'a> {
    tokens: &'a Tokens,
    now: fn() -> Timestamp,
    result: Option<Result<Token, Failure>>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let interrupted = || Err(Failure::Unavailable("its renewal was interrupted".to_owned(), None));
        let result = self.result.take().unwrap_or_else(interrupted);
        let Tokens { name, source, .. } = self.tokens;
        let mut state = self.tokens.lock();
        state.is_renewing = false;
        let started = state.last_attempt.unwrap_or_else(self.now);
        let after = |time: Timestamp, pause: Duration| time.saturating_add(pause).unwrap_or(Timestamp::MAX);
        state.next_attempt = match result {
            Ok(token) => {
                tracing::debug!("The credential {name:?} has another token");
                // A token of another process may be older than this attempt.
                let next = after(token.made, source.interval()).max(after(started, source.retry_delay()));
                (state.token, state.is_stale, state.failure) = (Some(token), false, None);
                next
            }
            Err(failure) => {
                let (why, pause) = match &failure {
                    Failure::Rejected(why) => (why, None),
                    Failure::Unavailable(why, pause) => (why, *pause),
                };
                let pause = pause.unwrap_or_default().clamp(source.retry_delay(), PAUSE_MAX);
                let shown = show_duration(pause);
                tracing::warn!(
                    "The token of the credential {name:?} cannot be renewed; trying again in {shown}: {why}"
                );
                state.failure = Some(failure);
                after(started, pause)
            }
        };
        drop(state);
        self.tokens.rounds.send_modify(|round| *round += 1);
    }
}
